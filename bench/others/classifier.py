"""What the other servers answer by: ConvNet as their documentation would have it, or our archive."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

from contract import Contract
from convnet import ConvNet

MODEL = Path(__file__).parents[2] / "model"
# Names an archive whose handler answers in the place of torchvision's transforms and the class.
ARCHIVE = "BENCH_ARCHIVE"


class Classifier:
    """The trained class behind torchvision's transforms."""

    def __init__(self) -> None:
        # One process a core computes: with torch's own threads besides, they would fight over the cores.
        torch.set_num_threads(1)
        contract = Contract.from_file(MODEL / "model-config.yaml")
        self.labels = contract.labels
        self.transform = transforms.Compose(
            [
                transforms.Grayscale(),
                transforms.Resize((contract.height, contract.width)),
                transforms.ToTensor(),
                transforms.Normalize(contract.mean, contract.std),
            ]
        )
        self.model = ConvNet()
        self.model.load_state_dict(torch.load(MODEL / "convnet.pth"))
        self.model.eval()

    def read(self, body: bytes) -> torch.Tensor:
        """Return a picture file as the model takes it, float32 (C, H, W)."""
        pixels: torch.Tensor = self.transform(Image.open(io.BytesIO(body)))
        return pixels

    def label(self, pictures: list[torch.Tensor]) -> list[str]:
        """Return the label of each picture of a batch."""
        with torch.inference_mode():
            outputs = self.model(torch.stack(pictures))
        return [self.labels[index] for index in outputs.argmax(dim=1).tolist()]


class ArchiveClassifier:
    """Our handler, out of our archive, in another server."""

    def __init__(self, archive: Path) -> None:
        from engine import Engine  # not where torchvision answers

        self.handler = Engine(archive).handler
        self.read = self.handler.read_pixels

    def label(self, pictures: list[Any]) -> list[str]:
        """Return the label of each picture of a batch."""
        labels: list[str] = self.handler.postprocess(
            self.handler.inference(self.handler.preprocess(pictures))
        )
        return labels


def load() -> Any:
    """Return what this server is to answer by."""
    archive = os.environ.get(ARCHIVE)
    return ArchiveClassifier(Path(archive)) if archive else Classifier()
