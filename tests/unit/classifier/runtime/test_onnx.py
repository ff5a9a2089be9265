"""An ONNX file is loaded if it takes images and returns one row per image."""

import sys

import onnx
import pytest
from onnx import TensorProto, helper

from classifier.contract import BadContract
from classifier.runtime.onnx import NotInstalled, load_onnx
from tests.support.lookup import onnx_model, table_of

ROWS = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [0.0, 9.0, 1.0]]


def other_input(model):
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n"]))


def float16_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.node.insert(0, helper.make_node("Cast", ["input"], ["cast"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "cast"


def integer_output(model):
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    model.graph.node[-1].output[0] = "table values"
    model.graph.node.append(helper.make_node("Cast", ["table values"], ["output"], to=TensorProto.INT64))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other_input, "lookup.onnx has 2 inputs: input, mask; export it with one, the images"),
        (float16_input, "lookup.onnx takes tensor(float16); export it with a float32 input: tensor(f"),
        (integer_output, "the output output of lookup.onnx is tensor(int64); it must be one of tensor(f"),
    ],
    ids=["two-inputs", "float16", "integers"],
)
def test_onnx_of_other_tensors_is_refused(change, sentence, tmp_path):
    """The error names the inputs and types, and says what to export."""
    model = onnx_model(table_of(ROWS))
    change(model)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "lookup.onnx")
    with pytest.raises(BadContract) as said:
        load_onnx(tmp_path / "lookup.onnx")
    assert sentence in str(said.value)


def test_worker_without_onnx_runtime_says_what_to_install(tmp_path, monkeypatch):
    """The archive's own code depends on nobody else's check."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotInstalled, match=r"install onnxruntime, or build the archive with RUNTIME=eager"):
        load_onnx(tmp_path / "model.onnx")
