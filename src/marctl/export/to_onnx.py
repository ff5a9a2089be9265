"""Export an archive's model to ONNX: one file, a batch of any size, from `input` to `output`."""

from __future__ import annotations

import logging
from typing import Any

import onnx
import torch

from marctl.errors import UserError
from marctl.export.export import (
    CONTRACT,
    Module,
    contract_json,
    example_for_any_batch,
    first_line,
)


def to_onnx(model: Module, contract: Any) -> bytes:
    """Return the ONNX file of a model: float32 `input` (batch, C, H, W) to `output` (batch, labels).

    Raises UserError.
    """
    proto = _exported(model, contract).model_proto
    _forget_its_origin(proto)
    onnx.helper.set_model_props(proto, {CONTRACT: contract_json(contract)})
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


def _exported(model: Module, contract: Any) -> Any:
    # It warns of each operator of torchvision's that it cannot know, where there is no torchvision.
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
        # The exporter's own text tells how it went about it; what stopped it is at the bottom of that.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(
            f"torch cannot export the model to ONNX ({type(cause).__name__}: {first_line(cause)}); let the "
            "class itself answer: make archive RUNTIME=eager"
        ) from error


def _forget_its_origin(proto: onnx.ModelProto) -> None:
    """Remove the notes on which line of which file each node came from: they differ at each build."""
    for noted in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del noted.metadata_props[:]
    del proto.graph.metadata_props[:]
    # A CPU and a CUDA build of one version write the same.
    proto.producer_version = proto.producer_version.split("+")[0]
