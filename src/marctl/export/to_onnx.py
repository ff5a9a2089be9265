"""Export an archive's model to ONNX: one file, for batches of any size, from `input` to `output`."""

from __future__ import annotations

import logging
from typing import Any

import onnx
import torch

from marctl.errors import UserError
from marctl.export.batches import first_line
from marctl.export.export import (
    CONTRACT,
    Module,
    contract_json,
    example_for_any_batch,
)


def to_onnx(model: Module, contract: Any) -> bytes:
    """Return the ONNX file of a model: float32 `input` (batch, C, H, W) to `output` (batch, labels).

    Raises UserError.
    """
    proto = _exported(model, contract).model_proto
    _drop_origins(proto)
    onnx.helper.set_model_props(proto, {CONTRACT: contract_json(contract)})
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


def _exported(model: Module, contract: Any) -> Any:
    # Without torchvision, it warns about each of torchvision's operators.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = example_for_any_batch(model, contract)
    try:
        return torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    except torch.onnx.OnnxExporterError as error:
        # The exporter's own message lists what it tried; the actual cause is at the end of the chain.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(
            f"torch cannot export the model to ONNX ({type(cause).__name__}: {first_line(cause)}); serve the "
            "class itself: make archive RUNTIME=eager"
        ) from error


def _drop_origins(proto: onnx.ModelProto) -> None:
    """Remove the source locations of the nodes: they differ between builds."""
    for entry in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del entry.metadata_props[:]
    del proto.graph.metadata_props[:]
    # CPU and CUDA builds of one torch version write the same file.
    proto.producer_version = proto.producer_version.split("+")[0]
