"""Examine a file of weights without running anything in it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marctl.adopt.source_values import plain
from marctl.archive.bounded_zip import open_zip

SAFETENSORS, ONNX, TORCHSCRIPT, STATE_DICT = ".safetensors", ".onnx", ".pt", ".pth"
ENDINGS, WITH_CLASS = (SAFETENSORS, ONNX, TORCHSCRIPT, STATE_DICT), (SAFETENSORS, STATE_DICT)
ZIP = b"PK\x03\x04"
# What open_zip raises for a file that is not a usable zip.
NO_ZIP = (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError)
# The header of a safetensors file is JSON; the format itself allows 100 MB.
MOST_HEADER = 10**8
Shapes = dict[str, tuple[int, ...]]


class BadWeights(ValueError):
    """Weights that cannot be used; the message says what they are, and what to save instead."""


@dataclass(frozen=True)
class Weights:
    """The suffix under which a file is saved here, and its tensors' shapes in order, if known."""

    ending: str
    shapes: Shapes

    @property
    def labels(self) -> tuple[int, str] | None:
        """The number of outputs of the last layer, and the tensor that shows it, or None."""
        layers = [(shape[0], name) for name, shape in self.shapes.items() if len(shape) == 2]  # noqa: PLR2004
        return layers[-1] if layers else None

    @property
    def channels(self) -> int | None:
        """The number of input channels of the first convolution, or None without one."""
        return next((shape[1] for shape in self.shapes.values() if len(shape) == 4), None)  # noqa: PLR2004


def weights_of(file: Path, name: str) -> Weights:
    """Examine a file of weights with the given name in its archive. Raises BadWeights."""
    if name.endswith(SAFETENSORS):
        return Weights(SAFETENSORS, _header(file, name))
    if name.endswith(ONNX):
        return Weights(ONNX, {})
    if _is_torchscript(file):
        return Weights(TORCHSCRIPT, {})
    return Weights(STATE_DICT, _state_dict(file, name))


def needs_torch(file: Path, name: str) -> bool:
    """Return whether `weights_of` needs torch for a file."""
    return not name.endswith((SAFETENSORS, ONNX)) and not _is_torchscript(file)


def _state_dict(file: Path, name: str) -> Shapes:
    # Imported only here: nothing else needs torch, and its import takes seconds.
    import torch

    from classifier.runtime.torch import unwrapped

    _check_zip(file, name)
    try:
        loaded = unwrapped(torch.load(file, map_location="cpu", weights_only=True))
        if _is_state_dict(loaded):
            return {key: tuple(tensor.shape) for key, tensor in loaded.items()}
    except Exception as error:  # a hostile pickle can make the loader raise anything
        raise BadWeights(
            f"{name} is not a state_dict: it is damaged, or contains Python objects whose code would run "
            "when it is loaded. If you trust it, load it yourself and save model.state_dict()"
        ) from error
    keys = [repr(key[:100]) for key in loaded if isinstance(key, str)] if isinstance(loaded, dict) else []
    held = ", ".join(keys[:5]) or type(loaded).__name__
    raise BadWeights(
        f"{name} contains no state_dict but {plain(held)}; save the model's state_dict() instead"
    )


def _is_state_dict(loaded: Any) -> bool:
    from torch import Tensor

    return (
        isinstance(loaded, dict)
        and len(loaded) > 0
        and all(isinstance(key, str) and isinstance(one, Tensor) for key, one in loaded.items())
    )


def _check_zip(file: Path, name: str) -> None:
    """Raise BadWeights if a zip unpacks to too much for its file size, which torch does not check."""
    with file.open("rb") as opened:
        if opened.read(len(ZIP)) != ZIP:
            return  # torch's older format
    try:
        with open_zip(file):
            pass
    except NO_ZIP as error:
        raise BadWeights(
            f"{name} is not a state_dict: {plain(str(error))}; save model.state_dict() again"
        ) from error


def _header(file: Path, name: str) -> Shapes:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(MOST_HEADER, file.stat().st_size):
            raise BadWeights(
                f"{name} is not a safetensors file; save it again with safetensors.torch.save_file"
            )
        text = opened.read(length)
    try:
        told = [(key, one) for key, one in json.loads(text).items() if key != "__metadata__"]
        told.sort(key=lambda pair: pair[1]["data_offsets"][0])
        return {str(key): tuple(map(int, one["shape"])) for key, one in told}
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise BadWeights(
            f"{name} is not a safetensors file; save it again with safetensors.torch.save_file"
        ) from error


def _is_torchscript(file: Path) -> bool:
    try:
        with open_zip(file) as packed:
            return any("/code/" in name for name in packed.namelist())
    except NO_ZIP:
        return False
