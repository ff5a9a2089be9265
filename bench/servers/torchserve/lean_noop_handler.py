"""A handler that computes nothing, with our reader of the front end's messages."""

from classifier.torchserve.socket import speed_up

LABEL = "2"  # of the load's image


class LeanNoopHandler:
    """Reads as our handler does and answers every request with the same digit."""

    def initialize(self, context):
        """Install our reader."""
        speed_up(context.metrics)

    def handle(self, data, context):  # noqa: ARG002 TorchServe's signature
        """Answer."""
        return [LABEL] * len(data)
