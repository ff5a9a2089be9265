"""Archives as torch-model-archiver makes them from other people's handlers."""

import json
import zipfile
from pathlib import Path

import yaml

from tests.conftest import ROOT

MODEL = (ROOT / "model" / "convnet.py").read_text()
ARTICLE = """
import io
import torch
from PIL import Image
from torchvision import transforms
from ts.torch_handler.base_handler import BaseHandler


class ConvNetHandler(BaseHandler):
    image_processing = transforms.Compose([
        transforms.Grayscale(num_output_channels=1),
        transforms.Resize((28, 28)),
        transforms.ToTensor(),
        transforms.Normalize((0.1302,), (0.3069,)),
    ])

    def preprocess(self, data):
        images = []
        for row in data:
            image = row.get("data") or row.get("body")
            image = Image.open(io.BytesIO(image))
            images.append(self.image_processing(image))
        return torch.stack(images).to(self.device)

    def postprocess(self, data):
        return data.argmax(1).tolist()
"""
EXPECTED = {"color": "grayscale", "size": [28, 28], "mean": [0.1302], "std": [0.3069]}
IMAGENET = {
    "color": "rgb",
    "resize": 256,
    "size": [224, 224],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def packed(file: Path, **change: bytes | None) -> Path:
    """Write a small .mar, with members changed, added or, if None, left out."""
    manifest = {
        "model": {
            "modelName": "m",
            "modelVersion": "1.0",
            "handler": "handler.py",
            "modelFile": "model.py",
            "serializedFile": "model.pth",
        }
    }
    members: dict[str, bytes | None] = {
        "MAR-INF/MANIFEST.json": json.dumps(manifest).encode(),
        "handler.py": ARTICLE.encode(),
        "model.py": MODEL.encode(),
        "model.pth": (ROOT / "model" / "convnet.pth").read_bytes(),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as mar:
        for name, data in (members | change).items():
            if data is not None:
                mar.writestr(name, data)
    return file


def config_of(folder: Path) -> dict:
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    config.pop("outputs", None)
    config.pop("archive", None)
    return config


def handler(
    compose: str, before: str = "", preprocess: str = "self.image_processing(image)", base="VisionHandler"
):
    """Return the source of a handler with this Compose."""
    return f"""
import io, torch, torchvision
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import Compose, Resize, ToTensor, Normalize, Grayscale, CenterCrop
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2
from ts.torch_handler.vision_handler import VisionHandler
from ts.torch_handler.base_handler import BaseHandler
{before}

class MyHandler({base}):
    SIZE = 28
    {compose}

    def preprocess(self, data):
        images = []
        for row in data:
            image = Image.open(io.BytesIO(row["body"]))
            image = {preprocess}
            images.append(image)
        return torch.stack(images)
"""


GREY = "transforms.Grayscale(), transforms.Resize((28, 28)), transforms.ToTensor()"
NORMALIZE = "transforms.Normalize((0.1302,), (0.3069,))"


def manifest(**changes) -> bytes:
    """Return a manifest with these keys of its model changed."""
    model = {"modelName": "m", "modelVersion": "1.0", "handler": "handler.py", "serializedFile": "model.pth"}
    return json.dumps({"model": model | changes}).encode()
