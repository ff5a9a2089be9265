"""The build decides what a model's outputs are and records it; only the record is used later."""

import json
import zipfile

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import helper, numpy_helper

from classifier.runtime.exported import load_torchscript
from marctl.export.export import contract_json
from marctl.export.to_torchscript import scripted
from tests.conftest import make
from tests.support.lookup import PIXELS, contract, image, onnx_model, table_of, write, write_contract
from tests.support.outputs import TOLD, eight_bits, softmax
from tests.support.rows import Engine
from tests.support.sealing import archive_here

JSON = {"Accept": "application/json"}
V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1, 4, 4], "data": [1] + [0] * (PIXELS - 1)}]}


CONSTANTS = {
    "step": np.float32(1 / 256),
    "zero": np.uint8(0),
    "half": np.float32(0.5),
    "sharp": np.float32(80),
}
TAKES = {
    "QuantizeLinear": ["step", "zero"],
    "DequantizeLinear": ["step", "zero"],
    "Sub": ["half"],
    "Mul": ["sharp"],
}


def ending(table, *operators):
    """The table model with these ONNX operators after its outputs."""
    model = onnx_model(table_of([list(row) for row in table]))
    graph = model.graph
    for operator in operators:
        graph.node[-1].output[0] = before = f"before {len(graph.node)}"
        graph.node.append(helper.make_node(operator, [before, *TAKES.get(operator, [])], ["output"]))
    used = {name for operator in operators for name in TAKES.get(operator, [])}
    for name in sorted(used):
        graph.initializer.append(numpy_helper.from_array(np.array(CONSTANTS[name]), name))
    return model


def built(model, keys, folder, labels, golden=1):
    """Build the archive of a model; return the make variables and the build's result."""
    variables = write(folder, model, contract(labels, **keys), golden)
    return variables, archive_here(**variables)


EIGHT_BITS = ("Softmax", "QuantizeLinear", "DequantizeLinear")
BUILT = {
    "logits": ([[3.0, -1.0, 0.5], [0.1, 0.2, 2.3]], (), {}, "logits"),
    "log-probabilities": ([[3.0, -1.0, 0.5], [0.1, 0.2, 2.3]], ("LogSoftmax",), {}, "log-probabilities"),
    "8-bits": ([[20.0, 0, 0], [0, 20.0, 0]], EIGHT_BITS, {}, "probabilities"),
    "told": ([[0.9, 0.8, 0.1], [0.1, 0.2, 0.3]], (), {"outputs": "logits"}, "logits"),
    "logits-that-add-up-to-1": ([[0.3, 0.71], [0.7, 0.3]], (), {}, "logits"),
    "and-told": ([[0.3, 0.71], [0.7, 0.3]], (), {"outputs": "logits"}, "logits"),
}


@pytest.mark.parametrize("case", BUILT)
def test_archive_names_the_kind_and_answers_by_it(case, tmp_path):
    """The archive's contract names the kind; JSON and V2 return matching probabilities."""
    table, operators, keys, kind = BUILT[case]
    labels = len(table[0])
    variables, done = built(ending(table, *operators), keys, tmp_path, labels, len(table))
    assert done.returncode == 0, done.stderr
    assert (f"\n  outputs: {kind}, as the golden images show; " in done.stdout) is ("outputs" not in keys)
    with zipfile.ZipFile(variables["MAR"]) as mar:
        recorded = yaml.safe_load(mar.read("lookup.yaml"))
        assert f"| outputs | {kind} |" in mar.read("model-card.md").decode()
    assert recorded == {**contract(labels), "outputs": kind}
    chances = [softmax(row) for row in table]
    if operators == EIGHT_BITS:
        chances = [eight_bits(row) for row in chances]
    with Engine(tmp_path / "lookup.mar") as engine:
        assert engine.handler.contract.outputs == engine.handler.description["contract"]["outputs"] == kind
        for places in ([0], [1], [0, 1], [1, 0, 1]):
            answers = engine.answer([{"body": image(place)} for place in places], [JSON] * len(places))
            for place, answer in zip(places, answers, strict=True):
                told = json.loads(answer.content)
                assert told["index"] == np.argmax(table[place])
                assert told["probability"] == pytest.approx(chances[place].max(), abs=1e-6)
        [answer] = engine.answer([{"body": json.dumps(V2).encode()}], [{}])
        told = {one["name"]: one["data"] for one in json.loads(answer.content)["outputs"]}
        assert told["probabilities"] == pytest.approx(list(chances[0]), abs=1e-6)


SATURATED = [[30.0, -30.0, -30.0], [-30.0, 30.0, -30.0]]
NOT_BUILT = {
    "one-output": ([[0.02]], (), {}, "the model has one output, and a sigmoid or a regression cannot be"),
    "sigmoids": ([[2.1, 0.8, -2.2]], ("Sigmoid",), {}, "all outputs are between 0 and 1, but those for 0"),
    "sigmoids-of-one": (SATURATED, ("Sigmoid",), {}, "all outputs are between 0 and 1, but those for a"),
    "sharpened-softmax": (
        SATURATED, ("Softmax", "Sub", "Mul", "Sigmoid"), {}, "all outputs are between 0 and 1, but those for"
    ),
    "sigmoids-told": (
        SATURATED, ("Sigmoid",), {"outputs": "probabilities"}, f"{TOLD}probabilities, but those for a"
    ),
    "log-sigmoids": (
        [[8.0, -8.0, -8.0]], ("Sigmoid", "Log"), {}, "all outputs are at most 0, but exp() of those for "
    ),
    "probabilities-as-logits": (
        SATURATED, ("Softmax",), {"outputs": "logits"}, f"{TOLD}logits, but the outputs for every golden"
    ),
    "contradiction": ([[3, 2, 1]], (), {"outputs": "probabilities"}, f"{TOLD}probabilities, but those for"),
    "nan": ([[3, float("nan"), 1]], (), {}, "the outputs for the golden image 0.png are not all finite"),
    "infinite": ([[3, float("inf"), 1]], (), {"outputs": "logits"}, "the outputs for the golden image 0.pn"),
    "unknown": ([[3, 2, 1]], (), {"outputs": "log_probabilities"}, "outputs is 'log_probabilities'; did you"),
}  # fmt: skip


def refused_in_a_line(done, folder):
    """Return the single error line of a failed build; there is no archive."""
    assert done.returncode != 0, done.stdout
    assert not (folder / "lookup.mar").exists()
    [said] = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    return said


@pytest.mark.parametrize("case", NOT_BUILT)
def test_build_is_refused_in_a_sentence(case, tmp_path):
    """An archive that would give wrong answers is not built; the error is one line."""
    table, operators, keys, sentence = NOT_BUILT[case]
    _, done = built(ending(table, *operators), keys, tmp_path, len(table[0]), len(table))
    assert refused_in_a_line(done, tmp_path).startswith(f"error: {sentence}")


def test_pixels_named_as_the_output_are_refused(tmp_path):
    """Each golden image's one white pixel looks like a certain label; noise does not."""
    model = onnx_model(table_of([[float(place) for place in range(PIXELS)]]), outputs=("pixels!", "scores"))
    done = make("archive", **write(tmp_path, model, contract(PIXELS, output="pixels!"), 2))
    said = refused_in_a_line(done, tmp_path)
    assert said.startswith("error: all outputs are between 0 and 1, but those for noise add up to")


@pytest.mark.parametrize("batch", ["n", 1])
def test_model_quantised_by_its_batch_works_with_a_batch_of_1(batch, tmp_path):
    """Dynamic int8 takes its scale from the whole batch; the suggested remedy works."""
    model = onnx_model(table_of([[3.0, -1.0, 0.5], [0.1, 0.2, 2.3]]), batch)
    nodes = model.graph.node
    nodes[1].input[0] = "rounded"
    nodes.insert(1, helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["rounded"]))
    nodes.insert(1, helper.make_node("DynamicQuantizeLinear", ["pixels"], ["levels", "scale", "zero"]))
    narrow = {"input": {**contract(3)["input"], "mean": [0.1], "std": [0.3]}}
    _, done = built(model, narrow, tmp_path, 3, 2)
    if batch == 1:
        assert done.returncode == 0, done.stderr
    else:
        said = refused_in_a_line(done, tmp_path)
        assert "answers an image differently than alone" in said
        assert said.endswith("batch's statistics, or export the model with a fixed batch of 1")


@pytest.mark.parametrize("frame", ["{}", "--- # the contract\n{}\n...\n"], ids=["braces", "document"])
def test_kind_is_added_to_any_yaml(frame, tmp_path):
    """A file to which no line can be added is written again, and keeps everything."""
    told = {**contract(3), "labels": ["ä", "b", "c"]}
    variables = write(tmp_path, onnx_model(table_of([[3.0, -1.0, 0.5]])), told, 1)
    (tmp_path / "lookup.yaml").write_text(frame.format(json.dumps(told)))  # JSON is YAML in braces
    done = archive_here(**variables)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(variables["MAR"]) as mar:
        assert yaml.safe_load(mar.read("lookup.yaml")) == {**told, "outputs": "logits"}


CLASS = """
import torch
from torch import nn


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(16, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.table(x.flatten(1)), 1)
"""


def test_every_form_of_the_model_carries_the_kind(tmp_path):
    """The runtime and the exports of an archive have the kind in their metadata."""
    variables = write_contract(tmp_path, contract(3), 2)
    (tmp_path / "lookup.py").write_text(CLASS)
    table = torch.from_numpy(table_of([[3.0, -1.0, 0.5], [0.1, 0.2, 2.3]]))
    torch.save({"table.weight": table.T.contiguous()}, tmp_path / "lookup.pth")
    variables |= {"MODEL": str(tmp_path / "lookup.py"), "WEIGHTS": str(tmp_path / "lookup.pth")}
    done = make("archive", **variables, RUNTIME="onnx")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(variables["MAR"]) as mar:
        model = onnx.load_from_string(mar.read("runtime.onnx"))
    [carried] = [one.value for one in model.metadata_props if one.key == "contract"]
    with Engine(tmp_path / "lookup.mar") as engine:
        assert json.loads(carried) == engine.handler.contract.to_dict()
        assert json.loads(carried)["outputs"] == "probabilities"
        assert json.loads(contract_json(engine.handler.contract))["outputs"] == "probabilities"
        (tmp_path / "scripted.pt").write_bytes(scripted(engine.eager, engine.handler.contract))
    with zipfile.ZipFile(tmp_path / "scripted.pt") as file:
        [name] = [name for name in file.namelist() if name.endswith("contract.json")]
        assert json.loads(file.read(name))["outputs"] == "probabilities"
    assert callable(load_torchscript(tmp_path / "scripted.pt"))
