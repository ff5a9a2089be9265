"""A handler that computes nothing: what is left is TorchServe."""

LABEL = "2"  # of the load's image


def handle(data, context):  # noqa: ARG001 TorchServe's signature
    """Answer every request with the same digit."""
    return [LABEL] * len(data) if data else None
