"""The ONNX export as a converter reads it: one input, one output, and the contract."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from classifier.contract import BadContract, Contract
from marctl.errors import UserError

CONTRACT = "contract"


@dataclass(frozen=True)
class OnnxFile:
    """A checked ONNX model, the shape (C, H, W) of its images, and its contract as JSON."""

    path: Path
    model: onnx.ModelProto
    input: str
    shape: tuple[int, ...]
    contract_json: str
    contract: Contract

    def reference(self, batch: np.ndarray) -> np.ndarray:
        """Return the outputs of ONNX's own reference implementation, plain numpy, for a batch."""
        [outputs] = ReferenceEvaluator(self.model).run(None, {self.input: batch})
        return np.asarray(outputs)


def read(path: Path) -> OnnxFile:
    """Read and check an ONNX file. Raises UserError."""
    model = _load(path)
    inputs, outputs = model.graph.input, model.graph.output
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; export one of each")
    batch, *shape = inputs[0].type.tensor_type.shape.dim
    if batch.HasField("dim_value"):
        raise UserError(f"{path} takes only batches of {batch.dim_value}; export a dynamic batch: make onnx")
    text = {entry.key: entry.value for entry in model.metadata_props}.get(CONTRACT)
    if text is None:
        raise UserError(f"{path} has no contract; export it with: make onnx")
    sizes = tuple(dimension.dim_value for dimension in shape)
    return OnnxFile(path, model, inputs[0].name, sizes, text, _contract(path, text))


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; export it with: make onnx") from error
    except Exception as error:  # protobuf's and the checker's own types have no common base
        raise UserError(f"{path} is not an ONNX model ({error}); export it with: make onnx") from error
    return model


def _contract(path: Path, text: str) -> Contract:
    try:
        return Contract.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, BadContract) as error:
        raise UserError(f"the contract in {path} is damaged ({error}); export it with: make onnx") from error
