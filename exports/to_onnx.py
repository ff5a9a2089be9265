"""Export an archive's model to ONNX: one file, a batch of any size, from `input` to `output`."""

from __future__ import annotations

import sys
from typing import Any

import onnx
import torch

from export import CONTRACT, Module, contract_json, example_of, run
from onnx_model import load_onnx


def to_onnx(model: Module, contract: Any) -> bytes:
    """Return the ONNX file of a model: float32 `input` (batch, C, H, W) to `output` (batch, labels)."""
    program = torch.onnx.export(
        model,
        (example_of(contract),),
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    if program is None:  # what torch answers without dynamo
        raise TypeError("torch.onnx.export returned no program")
    proto = program.model_proto
    _forget_its_origin(proto)
    onnx.helper.set_model_props(proto, {CONTRACT: contract_json(contract)})
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


def _forget_its_origin(proto: onnx.ModelProto) -> None:
    """Remove the notes on which line of which file each node came from: they differ at each build."""
    for noted in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del noted.metadata_props[:]
    del proto.graph.metadata_props[:]
    # A CPU and a CUDA build of one version write the same.
    proto.producer_version = proto.producer_version.split("+")[0]


if __name__ == "__main__":
    sys.exit(run("Export an archive's model to ONNX.", to_onnx, load_onnx))
