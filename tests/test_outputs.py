"""What a model's outputs are is decided when the archive is built, recorded in it, and read there alone."""

import json
import zipfile

import numpy as np
import onnx
import pytest
import torch
import yaml

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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(value):
    """The golden image is named."""
    with pytest.raises(Unfit, match=r"the golden image 1\.png are not all finite: \[1\.00000, -?(nan|inf)\]"):
        check_finite({"0.png": np.array([1.0, 2.0]), "1.png": np.array([1.0, value])})


BUILT = {
    "logits": ([[3.0, -1.0, 0.5], [0.1, 0.2, 2.3]], {}, "logits"),
    "log-probabilities": ([np.log([0.1, 0.7, 0.2]), np.log([0.9, 0.05, 0.05])], {}, "log-probabilities"),
    "8-bits": ([[0.99609375, 0, 0], [0, 0.99609375, 0]], {}, "probabilities"),
    "told": ([[0.9, 0.8, 0.1], [0.1, 0.2, 0.3]], {"outputs": "logits"}, "logits"),
}


@pytest.mark.parametrize("case", BUILT)
def test_archive_names_the_kind_and_answers_by_it(case, tmp_path):
    """The contract in the archive names it; JSON and V2 tell the probabilities that follow, in any batch."""
    outputs, keys, kind = BUILT[case]
    table = table_of([list(row) for row in outputs])
    variables = write(tmp_path, onnx_model(table), contract(3, **keys), len(outputs))
    done = make("archive", **variables)
    assert done.returncode == 0, done.stderr
    assert (f"\n  outputs: {kind}, as the golden images show; " in done.stdout) is ("outputs" not in keys)
    with zipfile.ZipFile(variables["MAR"]) as mar:
        recorded = yaml.safe_load(mar.read("lookup.yaml"))
        assert f"| outputs | {kind} |" in mar.read("model-card.md").decode()
    assert recorded == {**contract(3), "outputs": kind}
    expected = {"logits": softmax, "log-probabilities": np.exp, "probabilities": np.array}[kind]
    with Engine(tmp_path / "lookup.mar") as engine:
        assert engine.handler.contract.outputs == engine.handler.description["contract"]["outputs"] == kind
        for places in ([0], [1], [0, 1], [1, 0, 1]):
            answers = engine.answer([{"body": picture(place)} for place in places], [JSON] * len(places))
            for place, answer in zip(places, answers, strict=True):
                told = json.loads(answer.content)
                assert told["index"] == np.argmax(outputs[place])
                assert told["probability"] == pytest.approx(expected(outputs[place]).max(), abs=1e-6)
        [answer] = engine.answer([{"body": json.dumps(V2).encode()}], [{}])
        told = {one["name"]: one["data"] for one in json.loads(answer.content)["outputs"]}
        assert told["probabilities"] == pytest.approx(list(expected(outputs[0])), abs=1e-6)


@pytest.mark.parametrize(
    ("outputs", "keys", "sentence"),
    [
        ([[0.02]], {}, "the model has one output, and a sigmoid or a regression cannot be served yet"),
        ([[0.891, 0.7, 0.1]], {}, "all outputs are between 0 and 1, but those for 0.png add up to 1.691"),
        ([[3, 2, 1]], {"outputs": "probabilities"}, f"{TOLD}probabilities, but those for 0.png reach"),
        ([[3, float("nan"), 1]], {}, "the outputs for the golden image 0.png are not all finite"),
        ([[3, float("inf"), 1]], {"outputs": "logits"}, "the outputs for the golden image 0.png are not"),
        ([[3, 2, 1]], {"outputs": "log_probabilities"}, "outputs is 'log_probabilities'; did you mean 'log-"),
    ],
    ids=["one-output", "sigmoids", "contradiction", "nan", "infinite", "unknown"],
)  # fmt: skip
def test_build_is_refused_in_a_sentence(outputs, keys, sentence, tmp_path):
    """No archive is built that would answer wrongly; the error is one line."""
    table = table_of(outputs)
    variables = write(tmp_path, onnx_model(table), contract(len(outputs[0]), **keys), 1)
    done = make("archive", **variables)
    assert done.returncode != 0
    [said] = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert said.startswith(f"error: {sentence}")
    assert not (tmp_path / "lookup.mar").exists()


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
