"""Compile an archive's model to a .pt2 file with torch.export and AOTInductor, TorchScript's successors.

The file is machine code for the processor that it was compiled on.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from classifier.runtime.torch import PROCESSOR, processor_features
from marctl.errors import UserError
from marctl.export.batches import first_line
from marctl.export.export import (
    CONTRACT,
    Module,
    contract_json,
    example_for_any_batch,
)


def to_aoti(model: Module, contract: Any) -> bytes:
    """Return the .pt2 package of a model, for batches of any size. Raises UserError, also without a g++."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"there is no {compiler} to compile with (Debian, Ubuntu: apt-get install g++)")
    metadata = {CONTRACT: contract_json(contract), PROCESSOR: json.dumps(processor_features())}
    example = example_for_any_batch(model, contract)
    try:
        program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch raises a dozen types
        raise UserError(
            f"torch cannot compile the model ({type(error).__name__}: {first_line(error)}); serve the class "
            "itself: make archive RUNTIME=eager"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "model.pt2"
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(package), inductor_configs={"aot_inductor.metadata": metadata}
        )
        return package.read_bytes()
