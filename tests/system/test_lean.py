"""Archives with an ONNX export are built, served and verified without torch."""

import io
import json
import os
import pickle
import shutil
import subprocess
import zipfile

import numpy as np
import onnxruntime
import pytest
import requests
import torch

from marctl.build.locked_export import ANSWERS, MODEL
from model.convnet import ConvNet
from tests.conftest import DIGITS, MARCTL, ROOT, free_port
from tests.support.sealing import archive_here
from tests.support.tutorial_archive import tutorial_archive
from tests.support.waiting import COMMAND, PATIENCE
from tests.system.test_verify import Members, write
from training.mnist import load_test
from training.train import as_served

MOST_MB = 400
LOCKED = ROOT / "model" / "locked"
EAGER = {"NAME": "convnet", "RUNTIME": "eager"}
TWO = "tests/images/2.png"


@pytest.fixture(scope="module")
def lean(tmp_path_factory, checkout_in):
    """A new clone without an environment, in which the README's `make serve` has run."""
    copy = checkout_in(tmp_path_factory.mktemp("lean"))
    shutil.rmtree(copy / ".venv")
    port = str(free_port())
    done = made(copy, "serve", f"PORT={port}")
    assert done.returncode == 0, done.stderr
    yield copy, f"http://127.0.0.1:{port}/predictions/convnet"
    made(copy, "stop")


def made(folder, *words):
    """Run make without this environment in PATH."""
    path = os.pathsep.join(one for one in os.environ["PATH"].split(os.pathsep) if ".venv" not in one)
    environ = {key: value for key, value in os.environ.items() if key not in ("EXPLAIN", "VIRTUAL_ENV")}
    return subprocess.run(
        ["make", *words], cwd=folder, env=environ | {"PATH": path}, capture_output=True, text=True,
        timeout=COMMAND, check=False,
    )  # fmt: skip


def called(folder, *words):
    """Run the clone's own marctl."""
    environ = {key: value for key, value in os.environ.items() if key != "EXPLAIN"}
    command = [folder / ".venv" / "bin" / "marctl", *words]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=COMMAND, check=False
    )


@pytest.mark.torchserve
def test_serving_installs_no_torch(lean):
    """The archive is built and served with less than 400 MB on the disk."""
    copy, predictions = lean
    packages = {file.name.partition("-")[0] for file in (copy / ".venv").glob("lib/python*/site-packages/*")}
    assert "torchserve" in packages
    assert not packages & {"torch", "onnx", "onnxscript", "sympy", "triton"}
    assert sum(file.lstat().st_size for file in (copy / ".venv").rglob("*")) < MOST_MB * 1e6
    for digit, image in DIGITS.items():
        assert requests.put(predictions, data=image, timeout=PATIENCE).text == digit


@pytest.mark.torchserve
def test_answers_and_proof_need_no_torch(lean):
    """`predict`, `verify` and its proof work; the proof says what it left out."""
    copy, _ = lean
    assert called(copy, "predict", "model_store/convnet.mar", TWO).stdout == "2\n"
    looked = called(copy, "verify", "model_store/convnet.mar")
    assert looked.returncode == 0, looked.stderr
    proven = called(copy, "verify", "--run", "model_store/convnet.mar")
    assert proven.returncode == 0, proven.stderr
    assert "11 golden images answered as recorded" in proven.stdout
    assert "the class was not run: torch is not installed" in proven.stdout


@pytest.mark.torchserve
def test_what_needs_torch_says_so(lean, tmp_path):
    """One sentence with the remedy, before anything is started or built."""
    copy, _ = lean
    eager = tmp_path / "eager.mar"
    done = archive_here(MAR=str(eager), **EAGER)
    assert done.returncode == 0, done.stderr
    foreign = tutorial_archive(tmp_path)
    sentence = "error: this needs torch, which is not installed; install it: pip install 'marctl[torch]'\n"
    run = ("--run", tmp_path / "run", "--port", str(free_port()))
    for words in (
        ("serve", *run, eager),
        ("serve", *run, "--explain", "1", "model_store/convnet.mar"),
        ("predict", eager, TWO),
        ("predict", foreign, TWO),
        ("adopt", foreign, tmp_path / "mine"),
        ("verify", "--run", eager),
        ("archive", "--runtime", "eager", "--mar", tmp_path / "new.mar"),
        ("relock",),
    ):
        done = called(copy, *words)
        assert (done.returncode, done.stderr) == (1, sentence), words
    assert not (tmp_path / "new.mar").exists()
    assert not (tmp_path / "mine").exists()
    assert not (tmp_path / "run" / "server.json").exists()


@pytest.mark.torchserve
def test_hostile_weights_are_found_without_torch(lean, tmp_path):
    """The weights' pickle may name tensors and nothing else."""
    copy, _ = lean
    members = Members(copy / "model_store" / "convnet.mar")
    members["convnet.pth"] = calling()
    members.seal()
    done = called(copy, "verify", write(tmp_path / "convnet.mar", members))
    assert done.returncode == 1
    assert (
        "convnet.pth cannot be loaded as weights only, so it could run code: it names posix.getcwd"
        in done.stderr
    )


class Call:
    """Pickled as a call of a function."""

    def __reduce__(self):
        """Return the function and its arguments."""
        return os.getcwd, ()


def calling():
    """Return a file like torch.save's, with a pickle that calls a function."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("convnet/data.pkl", pickle.dumps(Call()))
    return packed.getvalue()


def test_locked_export_is_what_torch_exports(tmp_path):
    """A fresh export has the committed one's bytes, and its golden answers."""
    mar = tmp_path / "convnet.mar"
    done = archive_here(NAME="convnet", MAR=str(mar))
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(mar) as fresh:
        assert fresh.read("runtime.onnx") == (LOCKED / MODEL).read_bytes()
        assert json.loads(fresh.read("golden.json"))["pictures"] == json.loads((LOCKED / ANSWERS).read_text())


def test_locked_export_answers_like_the_class(contract):
    """On MNIST's 10,000 test images: the same labels, and outputs that differ by less than 1e-4."""
    images, _ = load_test()
    batch = as_served(images, contract)
    model = ConvNet()
    model.load_state_dict(torch.load(ROOT / "model" / "convnet.pth", weights_only=True))
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(batch)).numpy()
    session = onnxruntime.InferenceSession(LOCKED / MODEL, providers=["CPUExecutionProvider"])
    [outputs] = session.run(None, {"input": batch})
    assert np.array_equal(outputs.argmax(axis=1), expected.argmax(axis=1))
    assert np.abs(outputs - expected).max() < 1e-4


def test_a_build_does_not_depend_on_the_way(archive, tmp_path):
    """With the locked export and without it, the archive has the same bytes."""
    fresh = tmp_path / "convnet.mar"
    copy = tmp_path / "model"
    shutil.copytree(ROOT / "model", copy, ignore=shutil.ignore_patterns("locked", "__pycache__"))
    assert archive_here(NAME="convnet", MAR=str(fresh), MODEL=str(copy)).returncode == 0
    with zipfile.ZipFile(fresh) as one, zipfile.ZipFile(archive) as other:
        # What names the commit.
        apart = ("provenance.json", "model-card.md", "MAR-INF/MANIFEST.json", "MAR-INF/SHA256SUMS")
        assert set(one.namelist()) == set(other.namelist())
        for name in set(one.namelist()) - set(apart):
            assert one.read(name) == other.read(name), name


def test_stale_export_is_made_anew(tmp_path, checkout_in):
    """Other weights: the build says so, exports the class, and serves those weights."""
    copy = checkout_in(tmp_path / "copy")
    state = torch.load(copy / "model" / "convnet.pth", weights_only=True)
    state["fc2.bias"] += 0.001
    torch.save(state, copy / "model" / "convnet.pth")
    done = subprocess.run(
        [*MARCTL, "archive"], cwd=copy, capture_output=True, text=True, timeout=COMMAND, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "note: model/locked does not match the weights (export it again: make export); "
        "exporting the class again\n"
    )
    with zipfile.ZipFile(copy / "model_store" / "convnet.mar") as mar:
        assert mar.read("runtime.onnx") != (LOCKED / MODEL).read_bytes()
