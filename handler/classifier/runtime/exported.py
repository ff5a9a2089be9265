"""The forms in which an archive may hold its model. Each becomes a function: a batch in, outputs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import MEMBERS
from .onnx import load_onnx

# A float32 batch (N, C, H, W) to its outputs, float32 (N, labels).
Model = Callable[[np.ndarray], np.ndarray]


def load_torchscript(path: Path) -> Model:
    """Return the model of a TorchScript .pt file."""
    # torch is imported by a worker that needs it, and by no other.
    from .torch import as_function, torchscript_module

    return as_function(torchscript_module(path))


def load_compiled(path: Path) -> Model:
    """Return the model of a .pt2 package of AOTInductor's. Raises WrongProcessor."""
    from .torch import as_function, compiled_module

    return as_function(compiled_module(path))


# The members of an archive that hold its model in another form, and what loads each. A worker answers
# by such a form where there is one; class and weights stay beside it.
EXPORTED: dict[str, Callable[[Path], Model]] = {
    MEMBERS["torchscript"]: load_torchscript,
    MEMBERS["onnx"]: load_onnx,
    MEMBERS["aoti"]: load_compiled,
}


def load_exported(folder: Path) -> Model | None:
    """Return the model of an unpacked archive in the form it was exported to; None where it has none."""
    for name, load in EXPORTED.items():
        if (folder / name).exists():
            return load(folder / name)
    return None
