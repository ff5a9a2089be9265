"""An archive as tutorials build it: torch-model-archiver with a class, weights and a handler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

HANDLER = """
import io

import torch
from PIL import Image
from torchvision import transforms
from ts.torch_handler.base_handler import BaseHandler


class DigitHandler(BaseHandler):
    transform = transforms.Compose([
        transforms.Grayscale(),
        transforms.Resize((28, 28)),
        transforms.ToTensor(),
        transforms.Normalize((0.1302,), (0.3069,)),
    ])

    def preprocess(self, data):
        images = [Image.open(io.BytesIO(row.get("data") or row.get("body"))).convert("RGB") for row in data]
        return torch.stack([self.transform(image) for image in images]).to(self.device)

    def postprocess(self, outputs):
        return outputs.argmax(dim=1).tolist()
"""


def tutorial_archive(folder: Path, *options: str, name: str = "digits", handler: str = HANDLER) -> Path:
    """Build it in a folder with the archiver alone: deflated, and with nothing that proves its content."""
    folder.mkdir(parents=True, exist_ok=True)
    code = folder / "digit_handler.py"
    code.write_text(handler)
    command = [
        str(Path(sys.executable).with_name("torch-model-archiver")),
        *("--model-name", name, "--version", "1.0", "--handler", str(code), "--export-path", str(folder)),
        *("--model-file", str(ROOT / "model" / "convnet.py")),
        *("--serialized-file", str(ROOT / "model" / "convnet.pth")), *options,
    ]  # fmt: skip
    environ = os.environ | {"TMPDIR": str(folder)}
    subprocess.run(command, env=environ, check=True, capture_output=True)
    return folder / f"{name}.mar"
