"""What a file of weights holds, looked at without running any of it."""

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
# The header of a safetensors file is JSON; the format itself allows 100 MB.
MOST_HEADER = 10**8
Shapes = dict[str, tuple[int, ...]]


class BadWeights(ValueError):
    """Weights that cannot be taken over; the text says what they are, and what to save instead."""


@dataclass(frozen=True)
class Weights:
    """The ending under which a file is kept here, and its tensors' shapes in order, where they are told."""

    ending: str
    shapes: Shapes

    @property
    def labels(self) -> tuple[int, str] | None:
        """How many outputs the last layer has, and the tensor that tells it; None where none does."""
        layers = [(shape[0], name) for name, shape in self.shapes.items() if len(shape) == 2]  # noqa: PLR2004
        return layers[-1] if layers else None

    @property
    def channels(self) -> int | None:
        """How many channels the first convolution takes; None where there is none."""
        return next((shape[1] for shape in self.shapes.values() if len(shape) == 4), None)  # noqa: PLR2004


def weights_of(file: Path, name: str) -> Weights:
    """Look at a file of weights, which its archive calls by a name. Raises BadWeights."""
    if name.endswith(SAFETENSORS):
        return Weights(SAFETENSORS, _header(file, name))
    if name.endswith(ONNX):
        return Weights(ONNX, {})
    if _is_torchscript(file):
        return Weights(TORCHSCRIPT, {})
    return Weights(STATE_DICT, _state_dict(file, name))


def _state_dict(file: Path, name: str) -> Shapes:
    # Here alone: nothing else needs it, and its import takes seconds.
    import torch

    from classifier.runtime.torch import unwrapped

    _check_zip(file, name)
    try:
        loaded = unwrapped(torch.load(file, map_location="cpu", weights_only=True))
        if _is_state_dict(loaded):
            return {key: tuple(tensor.shape) for key, tensor in loaded.items()}
    except Exception as error:  # what a hostile pickle makes the loader raise is not foreseeable
        raise BadWeights(
            f"{name} is no state_dict: it is damaged, or holds Python objects whose code would run when it "
            "is loaded. Where you trust it, load it yourself and save model.state_dict()"
        ) from error
    keys = [repr(key[:100]) for key in loaded if isinstance(key, str)] if isinstance(loaded, dict) else []
    held = ", ".join(keys[:5]) or type(loaded).__name__
    raise BadWeights(f"{name} holds no state_dict, but {plain(held)}; save what it has of that")


def _is_state_dict(loaded: Any) -> bool:
    from torch import Tensor

    return (
        isinstance(loaded, dict)
        and len(loaded) > 0
        and all(isinstance(key, str) and isinstance(one, Tensor) for key, one in loaded.items())
    )


def _check_zip(file: Path, name: str) -> None:
    """Raise BadWeights where a zip unpacks to more than its file allows: its reader takes what it says."""
    with file.open("rb") as opened:
        if opened.read(len(ZIP)) != ZIP:
            return  # torch's older form
    try:
        with open_zip(file):
            pass
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
        raise BadWeights(
            f"{name} is no state_dict: {plain(str(error))}; save model.state_dict() anew"
        ) from error


def _header(file: Path, name: str) -> Shapes:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(MOST_HEADER, file.stat().st_size):
            raise BadWeights(f"{name} is no safetensors file; save it again by safetensors.torch.save_file")
        text = opened.read(length)
    try:
        told = [(key, one) for key, one in json.loads(text).items() if key != "__metadata__"]
        told.sort(key=lambda pair: pair[1]["data_offsets"][0])
        return {str(key): tuple(map(int, one["shape"])) for key, one in told}
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise BadWeights(
            f"{name} is no safetensors file; save it again by safetensors.torch.save_file"
        ) from error


def _is_torchscript(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as packed:
            return any("/code/" in name for name in packed.namelist())
    except zipfile.BadZipFile:
        return False
