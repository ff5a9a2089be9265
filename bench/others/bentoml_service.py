"""BentoML, with two workers, as `bentoml serve` runs it; a picture file's bytes are the whole body."""

import argparse
import os
import sys
from pathlib import Path

import bentoml
from PIL import Image

from classifier import Classifier


@bentoml.service(workers=2, logging={"access": {"enabled": False}})
class Digits:
    """Reads and answers one picture."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api
    def predict(self, picture: Path, /) -> str:
        """Return the digit of the picture that is the request's body."""
        return self.classifier.label([self.classifier.read(picture.read_bytes())])[0]

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
    def predicts(self, pictures: list[Path]) -> list[str]:
        return self.classifier.label([self.classifier.read(picture.read_bytes()) for picture in pictures])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_service:Digits", "--host", "127.0.0.1",
        "--port", str(parser.parse_args().port), "--working-dir", str(Path(__file__).parent)]
    os.execve(command[0], command, os.environ | {"BENTOML_DO_NOT_TRACK": "True"})
