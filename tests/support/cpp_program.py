"""The compiled C++ program, run as a user runs it, and small models for it."""

from __future__ import annotations

import json
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[2]

RGB = {"color": "rgb", "size": [224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Run:
    """The printed columns of each answered file after its name, the errors and the exit status."""

    rows: dict[str, list[str]]
    errors: list[str]
    status: int

    def pixels(self, name: str) -> np.ndarray:
        """The file's uint8 pixels, as --pixels printed them."""
        return np.frombuffer(bytes.fromhex(self.rows[name][-1]), np.uint8)


class Program:
    """The compiled program, run in a folder of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the program with exactly these arguments."""
        command = [str(ROOT / "exported" / "classify"), *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def __call__(self, model: Path, files: dict[str, bytes], *options: str) -> Run:
        """Write the files, and run the program on all of them and on one good image."""
        files = files | {"good": (ROOT / "tests" / "images" / "2.png").read_bytes()}
        for name, body in files.items():
            (self.folder / name).write_bytes(body)
        done = self.start(*options, str(model), *files)
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        return Run({row[0]: row[1:] for row in rows}, done.stderr.splitlines(), done.returncode)


class Means(torch.nn.Module):
    """A model for images of any size: the mean of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, C) for (N, C, H, W)."""
        return x.mean(dim=(2, 3))


def exported(path: Path, contract: str) -> Path:
    """Write a small model with this contract."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch recommends torch.export
        torch.jit.script(Means()).save(str(path), _extra_files={"contract.json": contract})
    return path


def rgb(resize: int | None, **other: object) -> str:
    """Return the contract of an RGB model as JSON; a key set to `...` is left out."""
    spec = {**RGB, "resize": resize, "labels": ["r", "g", "b"]} | other
    return json.dumps({key: value for key, value in spec.items() if value is not ...})
