"""The exported forms of a model. Each is loaded as a function: a batch in, outputs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import MEMBERS
from .onnx import load_onnx

# From a float32 batch (N, C, H, W) to its outputs, float32 (N, labels).
Model = Callable[[np.ndarray], np.ndarray]


def load_torchscript(path: Path) -> Model:
    """Return the model of a TorchScript .pt file."""
    # Imported here: a worker that does not need torch does not load it.
    from .torch import as_function, torchscript_module

    return as_function(torchscript_module(path))


def load_compiled(path: Path) -> Model:
    """Return the model of an AOTInductor package (.pt2). Raises WrongProcessor."""
    from .torch import as_function, compiled_module

    return as_function(compiled_module(path))


# The members of an archive that hold an exported model, and the function that loads each. A worker runs such
# a model if there is one; the class and weights stay in the archive, too.
EXPORTED: dict[str, Callable[[Path], Model]] = {
    MEMBERS["torchscript"]: load_torchscript,
    MEMBERS["onnx"]: load_onnx,
    MEMBERS["aoti"]: load_compiled,
}


def load_exported(folder: Path) -> Model | None:
    """Return the exported model of an unpacked archive; None if it has none."""
    for name, load in EXPORTED.items():
        if (folder / name).exists():
            return load(folder / name)
    return None
