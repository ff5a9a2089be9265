"""What runs an archive's model: torch, or ONNX Runtime, for which torch need not be installed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from classifier.runtime import MEMBERS, ONNX_SUFFIX
from marctl.extras import need, need_torch


def check_installed(names: Collection[str], model: Mapping[str, Any]) -> None:
    """Raise ModuleNotFoundError if the package is missing that runs an archive with these members.

    `model` is the section of its manifest.
    """
    if needs_torch(names, model):
        need_torch("torch")
    else:
        need("onnxruntime")


def needs_torch(names: Collection[str], model: Mapping[str, Any]) -> bool:
    """Return whether torch runs the model: a class, TorchScript or AOTInductor's machine code."""
    is_onnx_file = not model.get("modelFile") and str(model.get("serializedFile", "")).endswith(ONNX_SUFFIX)
    return MEMBERS["onnx"] not in names and not is_onnx_file
