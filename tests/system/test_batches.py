"""A model is tried in batches before it is archived; a fixed batch size still answers all requests."""

import collections
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import torch

from classifier.protocols.body import MOST_IMAGES
from marctl.verify.verify import faults
from tests.conftest import free_port, make
from tests.support.lookup import contract, image, onnx_model, table_of, write, write_contract
from tests.support.rows import Engine
from tests.support.sealing import archive_here
from tests.support.waiting import PATIENCE

ROWS = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [0.0, 9.0, 1.0]]
LABELS = ["label 0", "label 2", "label 1"]
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}

CLASS = """
import torch
from torch import nn


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(16, 3, bias=False)
        self.norm = nn.BatchNorm1d(3, track_running_stats=False, affine=False)

    def forward(self, x: torch.Tensor):
        {body}
"""


def class_of(folder, body, config, images=2):
    """Write a class with this forward body and the table as weights; return the make variables."""
    variables = write_contract(folder, config, images)
    (folder / "lookup.py").write_text(CLASS.format(body=body))
    torch.save({"table.weight": torch.from_numpy(table_of(ROWS)).T.contiguous()}, folder / "lookup.pth")
    return variables | {"MODEL": str(folder / "lookup.py"), "WEIGHTS": str(folder / "lookup.pth")}


def refused(variables):
    """Run a build that must fail, and return its single error line."""
    done = archive_here(**variables)
    assert done.returncode != 0, done.stdout
    [said] = done.stderr.splitlines()
    return said


FIXED = {"one": (1, 0), "three": (3, 0), "one-inside": ("n", 1)}


@pytest.mark.parametrize("case", FIXED)
def test_onnx_of_a_fixed_batch_answers_any(case, tmp_path):
    """A fixed batch, declared or hidden, answers single images, batches and a form of 64."""
    batch, inside = FIXED[case]
    variables = write(tmp_path, onnx_model(table_of(ROWS), batch, inside=inside), contract(3), 1)
    done = archive_here(**variables)
    assert done.returncode == 0, done.stderr
    assert f"the model takes only batches of {batch if batch != 'n' else 1}:" in done.stdout
    with Engine(tmp_path / "lookup.mar") as engine:
        for size in (1, 2, 3, 4, 7):
            answers = engine.predict([image(place % 3) for place in range(size)])
            assert [one.body for one in answers] == [LABELS[place % 3] for place in range(size)]
        form = {str(place): image(place % 3) for place in range(MOST_IMAGES)}
        answers = engine.answer([form, {"body": image(1)}], [MULTIPART, {}])
        assert answers[0].body.split("\n") == [LABELS[place % 3] for place in range(MOST_IMAGES)]
        assert answers[1].body == LABELS[1]
    assert faults(Path(variables["MAR"])) == []


def test_onnx_of_a_fixed_batch_serves_eight_connections(tmp_path):
    """A real TorchServe with batches of 4 answers every request of eight clients correctly."""
    variables = write(tmp_path, onnx_model(table_of(ROWS), 1), contract(3), 1)
    done = make("archive", **variables)
    assert done.returncode == 0, done.stderr
    port, run = free_port(), str(tmp_path / "run")
    served = make("serve", PORT=str(port), **(variables | {"RUN": run}))
    try:
        assert served.returncode == 0, served.stderr
        url = f"http://127.0.0.1:{port}/predictions/lookup"

        def ask(client):
            with requests.Session() as session:
                for white in [(client + number) % 3 for number in range(40)]:
                    reply = session.put(url, data=image(white), timeout=PATIENCE)
                    counted[reply.status_code, reply.text == LABELS[white]] += 1

        counted = collections.Counter()
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(ask, range(8)))
        assert counted == {(200, True): 8 * 40}
    finally:
        make("stop", RUN=run)


class Fixed(torch.nn.Module):
    """The table for a batch of exactly one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.from_numpy(table_of(ROWS)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (1, 3) for (1, 1, 4, 4)."""
        return x.reshape(1, 16) @ self.table


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_torchscript_of_a_fixed_batch_answers_any(tmp_path):
    """A trace that fixes its example's batch of one gets one image at a time."""
    variables = write(tmp_path, onnx_model(table_of(ROWS)), contract(3), 2)
    torch.jit.trace(Fixed(), torch.zeros(1, 1, 4, 4)).save(tmp_path / "lookup.pt")
    done = archive_here(**(variables | {"WEIGHTS": str(tmp_path / "lookup.pt")}))
    assert done.returncode == 0, done.stderr
    assert "the model takes only batches of 1:" in done.stdout
    with Engine(tmp_path / "lookup.mar") as engine:
        assert [one.body for one in engine.predict([image(place) for place in (0, 1, 2)])] == LABELS


@pytest.mark.parametrize("runtime", ["eager", "torchscript"])
def test_class_of_a_fixed_batch_answers_any(runtime, tmp_path):
    """Both the reference and the runtime answer any number of images."""
    variables = class_of(tmp_path, "return self.table(x.reshape(1, 16))", contract(3))
    done = archive_here(**variables, RUNTIME=runtime)
    assert done.returncode == 0, done.stderr
    with Engine(tmp_path / "lookup.mar") as engine:
        assert [one.body for one in engine.predict([image(place) for place in (0, 1, 2)])] == LABELS
        engine.check_eager()
        [why] = engine.answer([{"body": image(1)}], [{"explain": "True"}])
        told = json.loads(why.content)
        assert (told["label"], told["output"]) == (LABELS[1], pytest.approx(ROWS[1][2]))
        rise = told["output"] - told["baseline_output"]
        assert np.sum(told["attributions"]) == pytest.approx(rise, abs=1e-4)


@pytest.mark.parametrize("runtime", ["onnx", "aoti"])
def test_class_of_a_fixed_batch_is_not_exported(runtime, tmp_path):
    """The exporters refuse it in one sentence with the remedy."""
    variables = class_of(tmp_path, "return self.table(x.reshape(1, 16))", contract(3))
    said = refused(variables | {"RUNTIME": runtime})
    assert said.startswith("error: the model fails on a batch of 2 (RuntimeError: shape '[1, 16]' is invalid")
    assert said.endswith("or serve the class itself: make archive RUNTIME=eager")


def test_build_of_influenced_images_is_refused(tmp_path):
    """BatchNorm with the batch's own statistics gets one sentence and no archive."""
    body = "return self.norm(self.table(x.flatten(1))) if len(x) > 1 else self.table(x.flatten(1))"
    done = make("archive", **class_of(tmp_path, body, contract(3), images=1), RUNTIME="eager")
    assert done.returncode != 0
    assert done.stderr.startswith("error: in a batch of 2 the model answers an image differently than alone")
    assert not (tmp_path / "lookup.mar").exists()


def test_exported_runtime_is_tried_too(tmp_path):
    """A class that answers correctly is refused if its script takes another branch."""
    body = "return self.table(x.flatten(1)) + (1.0 if torch.jit.is_scripting() and x.shape[0] == 4 else 0.0)"
    variables = class_of(tmp_path, body, contract(3))
    assert archive_here(**variables, RUNTIME="eager").returncode == 0
    said = refused(variables | {"RUNTIME": "torchscript"})
    assert said.startswith("error: in a batch of 4 the model answers an image differently than alone")


RETURNED = {
    "tuple": ("return self.table(x.flatten(1)), x", "the model returns a tuple of 2; return one float32"),
    "dict": ("return {'logits': self.table(x.flatten(1))}", "the model returns a dict of logits; return one"),
    "integers": ("return self.table(x.flatten(1)).argmax(1)", "the model returns a tensor of int64; return"),
    "four-axes": ("return self.table(x.flatten(1))[..., None, None]",
                  "shape (1, 3, 1, 1) for one image, but model-config.yaml has 3 labels; return (N, labels)"),
    "one-axis": ("return self.table(x.flatten(1)).squeeze()", "an output of shape (3,) for one image"),
    "one-output": ("return self.table(x.flatten(1))[:, :1]", "returns an output of shape (1, 1) for one"),
    "nothing": ("return None", "the model returns a NoneType; return one float32 tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", RETURNED)
def test_class_that_returns_something_else_is_refused(case, tmp_path):
    """The error says what it returned and what to return."""
    body, sentence = RETURNED[case]
    assert sentence in refused(class_of(tmp_path, body, contract(3)) | {"RUNTIME": "eager"})


@pytest.mark.parametrize("dtype", ["double", "half", "bfloat16"])
def test_other_floats_are_answered(dtype, tmp_path):
    """Float16, bfloat16 and float64 outputs become float32; these are whole numbers, exact in each."""
    body = f"return self.table(x.flatten(1)).{dtype}()"
    done = archive_here(**class_of(tmp_path, body, contract(3)), RUNTIME="eager")
    assert done.returncode == 0, done.stderr
    with Engine(tmp_path / "lookup.mar") as engine:
        assert engine.handler.outputs([image(2)]).dtype == np.float32
        assert [one.body for one in engine.predict([image(place) for place in (0, 1, 2)])] == LABELS


TWO = ("features", "scores")


def test_output_is_named(tmp_path):
    """The contract selects the output of an ONNX file that has a value per label."""
    model = onnx_model(table_of(ROWS), outputs=TWO)
    done = archive_here(**write(tmp_path, model, contract(3, output="scores"), 3))
    assert done.returncode == 0, done.stderr
    with Engine(tmp_path / "lookup.mar") as engine:
        assert [one.body for one in engine.predict([image(place) for place in (0, 1, 2)])] == LABELS


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "lookup.onnx has 2 outputs: features, scores; name the one with a value per label in model-"),
        ({"output": "score"}, "output is 'score', which lookup.onnx does not have; did you mean 'scores'?"),
        ({"output": "x"}, "output is 'x', which lookup.onnx does not have; it has features, scores"),
        ({"output": "features"}, "an output of shape (1, 16) for one image, but model-config.yaml has 3"),
    ],
    ids=["none", "near", "far", "other"],
)
def test_output_that_is_not_clear_is_refused(keys, sentence, tmp_path):
    """The outputs are listed, and the closest name is suggested."""
    model = onnx_model(table_of(ROWS), outputs=TWO)
    assert sentence in refused(write(tmp_path, model, contract(3, **keys), 1))


def test_output_of_a_class_is_refused(tmp_path):
    """Only the outputs of an ONNX file have names."""
    variables = class_of(tmp_path, "return self.table(x.flatten(1))", contract(3, output="scores"))
    assert "output is 'scores', but only ONNX files have named outputs and this" in refused(variables)


def test_json_of_a_split_batch_is_that_of_each_image(tmp_path):
    """A model with a fixed batch gives the same probabilities as one with a dynamic batch."""
    told = []
    for batch in (1, "n"):
        folder = tmp_path / str(batch)
        folder.mkdir()
        variables = write(folder, onnx_model(table_of(ROWS), batch), contract(3), 1)
        assert archive_here(**variables).returncode == 0
        with Engine(folder / "lookup.mar") as engine:
            rows = [{"body": image(place)} for place in (0, 1, 2, 1)]
            answers = engine.answer(rows, [{"Accept": "application/json"}] * len(rows))
            told.append([json.loads(one.content)["probability"] for one in answers])
    assert told[0] == told[1]
