"""BentoML, with its adaptive batches and two workers; pictures come as files of a form, as its images do."""

import argparse
import os
import sys
from pathlib import Path

import bentoml
import pydantic

from classifier import Classifier


@bentoml.service(workers=2, backlog=16, logging={"access": {"enabled": False}})
class Digits:
    """Reads and answers a batch of pictures."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
    def files(self, pictures: list[Path]) -> list[str]:
        """Return the digits of a batch."""
        return self.classifier.label([self.classifier.read(picture.read_bytes()) for picture in pictures])

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
    def predict(self, pictures: list[pydantic.Base64Bytes]) -> list[str]:
        """Return the digits of a batch."""
        return self.classifier.label([self.classifier.read(picture) for picture in pictures])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_service:Digits", "--host", "127.0.0.1"]
    command += ["--port", str(parser.parse_args().port), "--working-dir", str(Path(__file__).parent)]
    os.execve(command[0], command, os.environ | {"BENTOML_DO_NOT_TRACK": "True"})  # noqa: S606 no shell
