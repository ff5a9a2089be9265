"""Archives with TorchScript, ONNX Runtime or AOTInductor: the same handler and golden answers."""

import json
import sys
import zipfile

import pytest
import requests
import torch

from classifier import canonical
from marctl.archive.mar import BadArchive
from marctl.export.runtime_member import RUNTIMES, runtime_member
from marctl.extras import remedy
from marctl.verify.verify import faults
from model.convnet import ConvNet
from tests.conftest import DIGITS, ROOT, free_port, make
from tests.support.programs import missing
from tests.support.rows import Engine
from tests.support.waiting import PATIENCE

MEMBERS = {"torchscript": "runtime.pt", "onnx": "runtime.onnx", "aoti": "runtime.pt2"}
PROGRAMS = {"torchscript": "runtime.pt (TorchScript)", "aoti": "runtime.pt2 (machine code)"}
BUILT = [runtime for runtime in RUNTIMES if runtime != "aoti" or missing("compiler") is None]


def each(runtimes):
    """The runtimes as test parameters; without a compiler, AOTInductor is skipped."""
    return [pytest.param(one, marks=pytest.mark.compiler if one == "aoti" else ()) for one in runtimes]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """One archive for each runtime, built by make; the models are named after their runtimes."""
    store = tmp_path_factory.mktemp("store")
    one_worker = store / "one-worker.yaml"
    config = (ROOT / "model" / "model-config.yaml").read_text()
    one_worker.write_text(config.replace("Workers: 2", "Workers: 1"))
    built = {}
    for runtime in BUILT:
        mar = store / f"{runtime}.mar"
        done = make("archive", NAME=runtime, MAR=str(mar), RUNTIME=runtime, CONFIG=str(one_worker))
        assert done.returncode == 0, done.stderr
        built[runtime] = mar
    return built


def test_torchserve_answers_by_every_runtime(archives, tmp_path):
    """One TorchServe serves them all; each reads ten digits and reports its runtime.

    ONNX Runtime leaves no machine identifier in the home folder, as it does to report on its use.
    """
    run, port, home = tmp_path / "run", free_port(), tmp_path / "home"
    home.mkdir()
    mars = " ".join(map(str, archives.values()))
    done = make("serve", RUN=str(run), PORT=str(port), MARS=mars, HOME=str(home))
    try:
        assert done.returncode == 0, done.stderr
        for runtime in BUILT:
            url = f"http://127.0.0.1:{port}/predictions/{runtime}"
            read = [requests.put(url, body, timeout=PATIENCE).text for body in DIGITS.values()]
            assert read == list(DIGITS)
            asked = f"http://127.0.0.1:{port + 1}/models/{runtime}?customized=true"
            told = requests.get(asked, timeout=PATIENCE).json()[0]["customizedMetadata"]
            assert told["provenance"]["runtime"] == runtime
        assert not list(home.rglob("*onnxruntime*"))
    finally:
        make("stop", RUN=str(run))


@pytest.mark.parametrize("runtime", each(RUNTIMES))
def test_archive_answers_apart(archives, runtime):
    """In isolation it answers as recorded; make verify lists its programs."""
    assert faults(archives[runtime], run=True) == []
    done = make("verify", MAR=str(archives[runtime]))
    assert done.returncode == 0, done.stderr
    assert f"runtime   {runtime}\n" in done.stdout
    assert PROGRAMS.get(runtime, "Python files; they run") in done.stdout


@pytest.mark.parametrize("runtime", each(MEMBERS))
def test_eager_stays_inside(archives, runtime):
    """Class and weights are those of the eager archive, whatever the runtime."""
    with zipfile.ZipFile(archives[runtime]) as one, zipfile.ZipFile(archives["eager"]) as other:
        assert set(one.namelist()) - set(other.namelist()) == {MEMBERS[runtime]}
        for name in ("convnet.py", "convnet.pth", "golden.json"):
            assert one.read(name) == other.read(name)
    with Engine(archives[runtime]) as engine:
        assert type(engine.eager).__name__ == "ConvNet"
        engine.check_eager()


@pytest.mark.parametrize("runtime", each(MEMBERS))
def test_runtime_of_other_weights_does_not_load(archives, runtime, contract, tmp_path):
    """The golden answers catch a member that was exported from other weights."""
    torch.manual_seed(0)
    foreign = runtime_member(runtime, lambda: ConvNet().eval(), contract)
    with zipfile.ZipFile(archives[runtime]) as mar:
        members = {name: mar.read(name) for name in mar.namelist() if name != canonical.SUMS}
    created = json.loads(members[canonical.PROVENANCE])["created"]
    swapped = tmp_path / "swapped.mar"
    with swapped.open("wb") as file:
        canonical.write(canonical.with_sums(members | foreign), created, file)
    with pytest.raises(BadArchive, match=r"GoldenMismatch: golden image 0\.png: expected 0 "):
        Engine(swapped)


@pytest.mark.parametrize("runtime", ["torchscript", "onnx"])
def test_build_repeats_itself(archives, runtime, tmp_path):
    """The same inputs give the same archive; only compiled code depends on its machine."""
    again = tmp_path / archives[runtime].name
    config = archives[runtime].with_name("one-worker.yaml")
    make("archive", NAME=runtime, MAR=str(again), RUNTIME=runtime, CONFIG=str(config))
    assert again.read_bytes() == archives[runtime].read_bytes()


def test_runtime_that_is_not_installed_is_named(archives, monkeypatch):
    """Without ONNX Runtime, the error says what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError) as missing:
        Engine(archives["onnx"])
    assert remedy(missing.value).endswith("install it: pip install 'marctl[predict]'")


def test_unknown_runtime_is_refused(tmp_path):
    """The error lists the known ones; nothing is built."""
    mar = tmp_path / "convnet.mar"
    done = make("archive", MAR=str(mar), RUNTIME="tensorrt")
    assert done.returncode != 0
    assert "error: RUNTIME=tensorrt is not known; use one of eager, torchscript, onnx, aoti" in done.stderr
    assert not mar.exists()


def test_archive_without_a_class_cannot_be_exported(archives, tmp_path):
    """TorchScript weights have no class to export: the error has the remedy."""
    with zipfile.ZipFile(archives["torchscript"]) as mar:
        (tmp_path / "convnet.pt").write_bytes(mar.read(MEMBERS["torchscript"]))
    weights, mar = str(tmp_path / "convnet.pt"), str(tmp_path / "convnet.mar")
    done = make("archive", MAR=mar, MODEL="", WEIGHTS=weights, FIGURES="", RUNTIME="onnx")
    assert done.returncode != 0
    assert "has no class to export; build it from one: MODEL=file.py" in done.stderr
