"""LitServe, with its dynamic batches and two workers; images come in JSON, as its examples send them."""

import argparse
import base64
from typing import Any

import litserve

from bench.servers.others.classifier import load


class Digits(litserve.LitAPI):
    """Reads each image, answers a batch of them."""

    def setup(self, device: str) -> None:  # noqa: ARG002 the framework's signature
        """Load the model, in a worker."""
        self.classifier = load()

    def decode_request(self, request: dict[str, str]) -> Any:
        """Return the image of a request as the model takes it."""
        return self.classifier.read(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Leave the images as they are: the model's own function stacks them."""
        return inputs

    def predict(self, inputs: list[Any]) -> list[str]:
        """Return the digits of a batch."""
        return self.classifier.label(inputs)

    def unbatch(self, output: list[str]) -> list[str]:
        """Return one answer per request."""
        return output

    def encode_response(self, output: str) -> str:
        """Return the digit."""
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    api = Digits(max_batch_size=16, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    port = parser.parse_args().port
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="warning")
