"""Export an archive's model to TorchScript, by compiling its code or by tracing an example.

A scripted model keeps its branches and loops; a traced one keeps the path that the example took.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import torch

from classifier import canonical
from classifier.runtime.torch import deprecated_torchscript
from marctl.errors import UserError
from marctl.export.export import CONTRACT, Module, contract_json, example_of

# Source locations and a random name, with which the file would differ between builds.
LEFT_OUT = (".debug_pkl", "/.data/serialization_id")


def scripted(model: Module, contract: Any) -> bytes:
    """Return the TorchScript file of a model, compiled from its code. Raises UserError."""
    with deprecated_torchscript():
        try:
            return _saved(torch.jit.script(model), contract)
        except RuntimeError as error:  # the compiler's: Python that TorchScript does not support
            raise UserError(f"torch.jit.script cannot compile the model: {error}") from error


def traced(model: Module, contract: Any) -> bytes:
    """Return the TorchScript file of a model, traced with one example."""
    with deprecated_torchscript(), torch.inference_mode():
        return _saved(torch.jit.trace(model, example_of(contract)), contract)


def _saved(module: Any, contract: Any) -> bytes:
    raw, file = io.BytesIO(), io.BytesIO()
    torch.jit.save(module, raw, _extra_files={f"{CONTRACT}.json": contract_json(contract)})
    with zipfile.ZipFile(raw) as members:
        kept = {name: members.read(name) for name in members.namelist() if not name.endswith(LEFT_OUT)}
    canonical.write(kept, canonical.EARLIEST, file)
    return file.getvalue()
