"""ConvNet behind torchvision's transforms, as the other servers' documentation suggests."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms

from classifier.contract import Contract
from model.convnet import ConvNet

MODEL = Path(__file__).parents[3] / "model"


class Classifier:
    """The trained class behind torchvision's transforms."""

    def __init__(self) -> None:
        # There is one process per core: with torch's own threads, they would compete for the cores.
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
        """Return an image file as the model takes it, float32 (C, H, W)."""
        pixels: torch.Tensor = self.transform(Image.open(io.BytesIO(body)))
        return pixels

    def label(self, images: list[torch.Tensor]) -> list[str]:
        """Return the label of each image of a batch."""
        with torch.inference_mode():
            outputs = self.model(torch.stack(images))
        return [self.labels[index] for index in outputs.argmax(dim=1).tolist()]
