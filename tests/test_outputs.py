"""What a model's outputs are is decided when the archive is built, recorded in it, and read there alone."""

import json
import zipfile

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import helper, numpy_helper

from conftest import make
from engine import Engine
from export import contract_json
from lookup import PIXELS, contract, onnx_model, picture, table_of, write, write_contract
from model_check import Unfit, check_finite, kind_of_outputs
from runtimes import load_torchscript
from to_torchscript import scripted

JSON = {"Accept": "application/json"}
V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1, 4, 4], "data": [1] + [0] * (PIXELS - 1)}]}


def rows(*outputs):
    """The outputs by the names of golden images."""
    return {f"{index}.png": row for index, row in enumerate(outputs)}


def softmax(values):
    odds = np.exp(np.array(values) - np.max(values))
    return odds / odds.sum()


def eight_bits(values):
    """What a quantised softmax makes of probabilities: multiples of 1/256, at most 255 of them."""
    return np.minimum(np.round(np.array(values) * 256), 255) / 256


THOUSANDS = softmax(np.random.default_rng(0).normal(0, 3, 5000))
CERTAIN = {
    "log-probabilities": ("log-probabilities", [np.log([0.1, 0.7, 0.2]), np.log([0.9, 0.05, 0.05])]),
    "probabilities": ("probabilities", [[0.1, 0.7, 0.2], [0.9, 0.05, 0.05]]),
    "one-hot": ("probabilities", [[0, 1, 0], [1, 0, 0]]),
    "saturated-8-bits": ("probabilities", [[0.99609375, 0, 0], [0, 0.99609375, 0]]),
    "8-bits": ("probabilities", [eight_bits(softmax(np.arange(10) / 3)), eight_bits(np.full(10, 0.1))]),
    "float16-thousands": ("probabilities", [THOUSANDS.astype(np.float16)]),
    "float32-thousands": ("probabilities", [THOUSANDS.astype(np.float32)]),
    "float16-log-thousands": ("log-probabilities", [np.log(THOUSANDS).astype(np.float16)]),
    "logits": ("logits", [[3.0, -1.0, 0.5], [0.1, 0.2, 0.3]]),
    "one-row-of-logits": ("logits", [[0.1, 0.7, 0.2], [0.1, 0.7, 1.2]]),
    "tanh": ("logits", [[0.3, -0.9, 0.6]]),
    "negative-logits": ("logits", [[-3.0, -1.0, -0.5]]),
}


@pytest.mark.parametrize("case", CERTAIN)
def test_kind_is_told_by_the_golden_outputs(case):
    """Where the contract does not say it, what every golden row shows; else what a softmax takes."""
    kind, outputs = CERTAIN[case]
    assert kind_of_outputs(None, rows(*outputs)) == kind
    assert kind_of_outputs(kind, rows(*outputs)) == kind


SIGMOIDS = "these look like sigmoids of several labels at once, which cannot be served yet"
TOLD = "model-config.yaml says outputs: "
REFUSED = {
    "one-output": (None, [[0.7]], "one output, and a sigmoid or a regression cannot be served yet"),
    "one-output-told": ("logits", [[3.7]], "the model has one output"),
    "one-certain-output": ("probabilities", [[1.0]], "the model has one output"),
    "sigmoids": (None, [[0.891, 0.7, 0.1, 0.2]], f"those for 0.png add up to 1.891: {SIGMOIDS}"),
    "sigmoids-of-one-row": (None, [[1, 0, 0], [0.9, 0.8, 0.1]], f"those for 1.png add up to 1.8: {SIGMOIDS}"),
    "sigmoids-of-none": (None, [[0.01, 0.02, 0.01]], f"those for 0.png add up to 0.04: {SIGMOIDS}"),
    "sigmoids-of-thousands": (None, [[0.001] * 5000], f"those for 0.png add up to 5: {SIGMOIDS}"),
    "sigmoids-told": ("probabilities", [[0.9, 0.8, 0.1]], f"{TOLD}probabilities, but those for 0.png add up"),
    "logits-as-probabilities": ("probabilities", [[0.5, 0.5], [-1, 2]], "1.png reach from -1 to 2; write"),
    "probabilities-as-logits": ("logits", [[0.1, 0.9], [0.5, 0.5]], "between 0 and 1 and add up to 1; write"),
    "8-bits-as-logits": ("logits", [[0.99609375, 0, 0]], "between 0 and 1 and add up to 1; write"),
    "logits-as-logarithms": ("log-probabilities", [[-3, -1, 2]], "for 0.png reach 2, and the logarithm"),
    "low-logits-as-logarithms": ("log-probabilities", [[-3, -1, -2]], "exp() of those for 0.png add up to"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_outputs_are_refused(case):
    """What is no classifier with one answer, and what is not what the contract says."""
    told, outputs, sentence = REFUSED[case]
    with pytest.raises(Unfit) as refused:
        kind_of_outputs(told, rows(*outputs))
    assert sentence in str(refused.value)


def test_contract_is_believed_where_it_may_be_right():
    """Logits may lie between 0 and 1, or be log-probabilities; a thousand labels in 8 bits add up to less."""
    assert kind_of_outputs("logits", rows([0.9, 0.8, 0.1])) == "logits"
    assert kind_of_outputs("logits", rows(np.log([0.1, 0.9]))) == "logits"
    coarse = eight_bits(softmax(np.r_[8.0, np.zeros(999)]))
    assert coarse.sum() < 0.9
    assert kind_of_outputs("probabilities", rows(coarse)) == "probabilities"
    with pytest.raises(Unfit):
        kind_of_outputs(None, rows(coarse))


MADE_UP = {
    "sigmoids": (None, [[1, 0, 0]], [[0, 0, 1], [0.5, 0.5, 0.5]], f"made-up 1 add up to 1.5: {SIGMOIDS}"),
    "sigmoids-of-none": (None, [[1, 0, 0]], [[0, 0, 1], [0, 0, 0]], f"made-up 1 add up to 0: {SIGMOIDS}"),
    "sigmoids-of-a-hundred": (None, [np.eye(100)[0]], [np.zeros(100)], f"made-up 0 add up to 0: {SIGMOIDS}"),
    "sigmoids-of-a-thousand": (None, [np.eye(1000)[0]], [np.linspace(0, 1e-4, 1000)], SIGMOIDS),
    "equal-ones-of-a-thousand": (None, [np.eye(1000)[0]], [np.full(1000, 1e-9)], SIGMOIDS),
    "several-of-a-thousand": (None, [np.eye(1000)[0]], [np.eye(1000)[:2].sum(0)], SIGMOIDS),
    "sigmoids-told": ("probabilities", [[1, 0, 0]], [[1, 0, 1]], f"{TOLD}probabilities, but those for made-"),
    "logits-as-probabilities": ("probabilities", [[0.3, 0.7]], [[5, -2]], "0 reach from -2 to 5; write what"),
    "logits-as-logarithms": (
        "log-probabilities",
        [np.log([0.3, 0.7])],
        [[1, -2]],
        "made-up 0 reach 1, and t",
    ),
    "probabilities-as-logits": ("logits", [[0.3, 0.7]], [[0.5, 0.5]], "and for made-up ones are between 0"),
    "log-sigmoids": (None, [[-0.1, -9, -0.2]], [[-3, -1, -2]], "all outputs are at most 0, but exp() of th"),
    "log-sigmoids-of-one": (None, [[0, -30, -30]], [[-0.7, -0.7, -0.7]], "the logarithms of sigmoids of"),
}


@pytest.mark.parametrize("case", MADE_UP)
def test_made_up_images_show_what_golden_ones_do_not(case):
    """Golden images may have one label each by chance; the outputs for noise, black and white tell more."""
    told, outputs, others, sentence = MADE_UP[case]
    with pytest.raises(Unfit) as refused:
        kind_of_outputs(told, rows(*outputs), made_up(*others))
    assert sentence in str(refused.value)
    if told is None:
        assert kind_of_outputs("logits", rows(*outputs), made_up(*others)) == "logits"


def made_up(*outputs):
    """The outputs by the names of made-up images."""
    return {f"made-up {index}": np.array(row, np.float64) for index, row in enumerate(outputs)}


FLAT = np.full(4800, 1 / 4800)
NOT_FINITE = [float("nan"), 9.0]
STILL = {
    "logits-by-chance": ("logits", [[0.3, 0.71]], [[12.0, -4.0], [0.0, 0.0]]),
    "fractions-by-chance": ("logits", [[0.3, 0.9]], [[12.0, -4.0]]),
    "logarithms-by-chance": ("logits", [np.log([0.3, 0.7])], [[12.0, -4.0]]),
    "shifted-logits": ("logits", [[0.0, -0.5, -3.0]], [[-2.0, 0.0, -0.1]]),
    "far-below-0": ("logits", [[-15.0, -20.0, -31.0]], [[-20.0, -20.0, -20.0]]),
    "not-finite": ("probabilities", [[0.3, 0.7]], [NOT_FINITE]),
    "flat-in-8-bits": ("probabilities", [np.eye(30)[0]], [eight_bits(np.full(30, 1 / 30))]),
    "nothing-left-of-8-bits": ("probabilities", [eight_bits(np.eye(1000)[0])], [np.zeros(1000)]),
    "flat-in-float16": ("probabilities", [THOUSANDS], [FLAT.astype(np.float16)]),
    "flat-logarithms-in-float16": (
        "log-probabilities", [np.log(THOUSANDS)], [np.log(FLAT).astype(np.float16)],
    ),
    "flat-logarithms-in-bfloat16": (
        "log-probabilities", [np.log(THOUSANDS)], [torch.tensor(np.log(FLAT)).bfloat16().double().numpy()],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STILL)
def test_made_up_images_contradict_nothing_by_rounding(case):
    """What is no number says nothing; 8 bits, float16 and bfloat16 round flat rows by more than others."""
    kind, outputs, others = STILL[case]
    assert kind_of_outputs(None, rows(*outputs), made_up(*others)) == kind
    assert kind_of_outputs(kind, rows(*outputs), made_up(*others)) == kind


def test_remedy_for_a_coarse_softmax_works():
    """Where 8 bits lose too much of a thousand labels, each way out that is named is accepted."""
    logits = np.r_[5.0, np.zeros(999)]
    coarse = eight_bits(softmax(logits))
    assert coarse.sum() < 0.2
    with pytest.raises(Unfit) as refused:
        kind_of_outputs("probabilities", rows(coarse))
    assert str(refused.value).endswith(
        "; keep a softmax in float32 where the rest is in 8 bits, or leave it out and write outputs: logits; "
        "sigmoids of several labels at once cannot be served yet"
    )
    assert kind_of_outputs("probabilities", rows(softmax(logits).astype(np.float32))) == "probabilities"
    assert kind_of_outputs("logits", rows(logits)) == "logits"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(value):
    """The golden image is named."""
    with pytest.raises(Unfit, match=r"the golden image 1\.png are not all finite: \[1\.00000, -?(nan|inf)\]"):
        check_finite({"0.png": np.array([1.0, 2.0]), "1.png": np.array([1.0, value])})


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
    """The model of a table whose outputs go through these operators of ONNX."""
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
    """Build the archive of a model; return the variables of make, and what make did."""
    variables = write(folder, model, contract(labels, **keys), golden)
    return variables, make("archive", **variables)


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
    """The contract in the archive names it; JSON and V2 tell the probabilities that follow, in any batch."""
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
            answers = engine.answer([{"body": picture(place)} for place in places], [JSON] * len(places))
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
    """The one line that a build ended with, and no archive."""
    assert done.returncode != 0, done.stdout
    assert not (folder / "lookup.mar").exists()
    [said] = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    return said


@pytest.mark.parametrize("case", NOT_BUILT)
def test_build_is_refused_in_a_sentence(case, tmp_path):
    """No archive is built that would answer wrongly; the error is one line."""
    table, operators, keys, sentence = NOT_BUILT[case]
    _, done = built(ending(table, *operators), keys, tmp_path, len(table[0]), len(table))
    assert refused_in_a_line(done, tmp_path).startswith(f"error: {sentence}")


def test_pixels_named_as_the_output_are_refused(tmp_path):
    """Each golden image's one white pixel looks like a certain label; noise does not."""
    model = onnx_model(table_of([[float(place) for place in range(PIXELS)]]), outputs=("pixels!", "scores"))
    _, done = built(model, {"output": "pixels!"}, tmp_path, PIXELS, 2)
    said = refused_in_a_line(done, tmp_path)
    assert said.startswith("error: all outputs are between 0 and 1, but those for noise add up to")


@pytest.mark.parametrize("batch", ["n", 1])
def test_model_quantised_by_its_batch_works_with_a_batch_of_1(batch, tmp_path):
    """Dynamic int8 takes its scale from the whole batch: the remedy that is named is one that works."""
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
        assert "answers an image otherwise than alone" in said
        assert said.endswith("BatchNorm with its statistics, or export it with a fixed batch of 1")


@pytest.mark.parametrize("frame", ["{}", "--- # the contract\n{}\n...\n"], ids=["braces", "document"])
def test_kind_is_added_to_any_yaml(frame, tmp_path):
    """Where a line cannot be added to the file, it is written anew; nothing that it said is lost."""
    told = {**contract(3), "labels": ["ä", "b", "c"]}
    variables = write(tmp_path, onnx_model(table_of([[3.0, -1.0, 0.5]])), told, 1)
    (tmp_path / "lookup.yaml").write_text(frame.format(json.dumps(told)))  # JSON is YAML in braces
    done = make("archive", **variables)
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
    """The runtime that answers has it in its metadata, and so has what is exported from the archive."""
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
