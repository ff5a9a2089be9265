"""BentoML, with its adaptive batches and two workers; images come in JSON: its files go through the disk."""

import argparse
import base64
import os
import sys
from pathlib import Path

import bentoml

from bench.servers.others.classifier import load


@bentoml.service(workers=2, logging={"access": {"enabled": False}})
class Digits:
    """Reads and answers a batch of images."""

    def __init__(self) -> None:
        self.classifier = load()

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
    def predict(self, images: list[str]) -> list[str]:
        """Return the digits of a batch; each image is a file's bytes in base64."""
        files = [base64.b64decode(image) for image in images]
        return self.classifier.label([self.classifier.read(file) for file in files])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    service = "bench.servers.others.bentoml_service:Digits"
    command = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1"]
    command += ["--port", str(parser.parse_args().port), "--working-dir", str(Path(__file__).parents[3])]
    os.execve(command[0], command, os.environ | {"BENTOML_DO_NOT_TRACK": "True"})  # noqa: S606 no shell
