"""TorchScript, ONNX and AOTInductor: each file answers like the model it was exported from."""

import hashlib
import json
import warnings
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from classifier import golden
from classifier.runtime.exported import load_compiled, load_torchscript
from classifier.runtime.onnx import OnnxModel, load_onnx
from classifier.runtime.torch import (
    CompiledModule,
    WrongProcessor,
    as_function,
    compiled_module,
    torchscript_module,
)
from marctl.errors import UserError
from marctl.export.export import contract_json
from marctl.export.to_onnx import to_onnx
from marctl.export.to_torchscript import scripted, traced
from tests.conftest import ROOT, export, marctl
from tests.support.programs import missing
from training.mnist import load_test

EXPORTED = ROOT / "exported"
LOADERS = {
    "convnet.scripted.pt": load_torchscript,
    "convnet.traced.pt": load_torchscript,
    "convnet.onnx": load_onnx,
    "convnet.pt2": load_compiled,
}
NAMES = [pytest.param(name, marks=pytest.mark.compiler if name.endswith(".pt2") else ()) for name in LOADERS]
# float32 sums in another order; the log-probabilities go down to -30.
TOLERANCE = 2e-5
IMAGES = 10_000


@pytest.fixture(scope="module")
def exported():
    """The folder of exported files, as make writes it."""
    done = export("torchscript", "onnx", *(["aoti"] if missing("compiler") is None else []))
    assert done.returncode == 0, done.stderr
    return EXPORTED


@pytest.fixture(scope="module")
def batch(contract):
    """All of MNIST's test images, as the model takes them."""
    images, _ = load_test()
    return contract.normalize(images[..., None])


@pytest.fixture(scope="module")
def eager(engine, batch):
    """The log-probabilities (10000, 10) of the archive's own class."""
    with torch.inference_mode():
        return engine.eager(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_export_answers_as_the_archive(exported, name, batch, eager):
    """All 10,000 test images get the same digit, and the same log-probabilities to within rounding."""
    outputs = LOADERS[name](exported / name)(batch)
    assert len(outputs) == IMAGES
    assert np.array_equal(outputs.argmax(axis=1), eager.argmax(axis=1))
    np.testing.assert_allclose(outputs, eager, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 7, 32])
def test_batch_is_of_any_size(exported, name, size, batch, eager):
    """The same file answers 1, 7 or 32 images."""
    outputs = LOADERS[name](exported / name)(batch[:size])
    np.testing.assert_allclose(outputs, eager[:size], rtol=0, atol=TOLERANCE)


@pytest.mark.compiler
def test_loaders_really_run_their_file(exported):
    """ONNX Runtime, AOTInductor or TorchScript computes the answer, not the class."""
    assert isinstance(load_onnx(exported / "convnet.onnx"), OnnxModel)
    assert isinstance(compiled_module(exported / "convnet.pt2"), CompiledModule)
    assert isinstance(torchscript_module(exported / "convnet.traced.pt"), torch.jit.ScriptModule)


@pytest.mark.compiler
def test_contract_lies_in_each_file(exported, contract):
    """The file alone is enough to prepare an image."""
    asked = {"contract.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.load(exported / "convnet.scripted.pt", _extra_files=asked)
    in_onnx = {one.key: one.value for one in onnx.load(exported / "convnet.onnx").metadata_props}
    in_pt2 = torch._C._aoti.AOTIModelPackageLoader.load_metadata_from_package(
        str(exported / "convnet.pt2"), "model"
    )
    found = [asked["contract.json"], in_onnx["contract"], in_pt2["contract"]]
    assert [json.loads(one) for one in found] == [json.loads(contract_json(contract))] * len(found)


def test_onnx_is_one_file_with_plain_names(exported):
    """ONNX Runtime alone runs it, from `input` to `output`, without other files."""
    session = onnxruntime.InferenceSession(exported / "convnet.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["input"]
    assert [one.name for one in session.get_outputs()] == ["output"]
    assert session.get_inputs()[0].shape[0] == "batch"
    assert not list(exported.glob("*.data"))
    onnx.checker.check_model(onnx.load(exported / "convnet.onnx"), full_check=True)


@pytest.mark.parametrize(
    ("kind", "file"),
    [("scripted", "convnet.scripted.pt"), ("traced", "convnet.traced.pt"), ("onnx", "convnet.onnx")],
)
def test_export_repeats_itself(exported, archive, tmp_path, kind, file):
    """The same archive gives the same bytes, which contain no path of this machine."""
    out = tmp_path / "again"
    done = marctl("export", kind, archive, out, cwd=tmp_path, PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    again, first = (hashlib.sha256(path.read_bytes()).digest() for path in (out, exported / file))
    assert again == first
    assert b"/archive-" not in out.read_bytes()


class Bright(nn.Module):
    """Pass bright images on and invert dark ones: what it does depends on its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pixels (N, C * H * W), inverted or not."""
        if x.mean() > 0:
            return x.flatten(1)
        return -x.flatten(1)


def test_script_keeps_a_branch_and_trace_does_not(contract, tmp_path):
    """A trace has only the path of its example; the scripted file still branches."""
    light = np.ones((1, *contract.shape), np.float32)
    (tmp_path / "scripted.pt").write_bytes(scripted(Bright(), contract))
    with pytest.warns(torch.jit.TracerWarning, match="Converting a tensor to a Python boolean"):
        (tmp_path / "traced.pt").write_bytes(traced(Bright(), contract))
    eager = as_function(Bright())
    one, other = load_torchscript(tmp_path / "scripted.pt"), load_torchscript(tmp_path / "traced.pt")
    for image in (light, -light):
        assert np.array_equal(one(image), eager(image))
    # The example was dark: zeros.
    assert np.array_equal(other(-light), eager(-light))
    assert not np.array_equal(other(light), eager(light))


def test_model_that_onnx_cannot_hold_is_said(contract):
    """A class that branches on its input is no ONNX graph: the error has the reason and remedy."""
    with pytest.raises(UserError, match=r"torch cannot export .* to ONNX \(\w+: .+\); .* RUNTIME=eager"):
        to_onnx(Bright().eval(), contract)


def test_only_the_deprecation_is_silenced(exported):
    """Only the expected warning that TorchScript is deprecated is silenced."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        load_torchscript(exported / "convnet.scripted.pt")
        warnings.warn("`torch.jit.load` is deprecated", FutureWarning, stacklevel=1)
    assert len(heard) == 1


@pytest.mark.compiler
def test_file_for_another_processor_is_refused(exported, tmp_path):
    """A file compiled for missing processor features is refused before its code is loaded."""
    foreign = tmp_path / "foreign.pt2"
    with zipfile.ZipFile(exported / "convnet.pt2") as here, zipfile.ZipFile(foreign, "w") as there:
        for info in here.infolist():
            data = here.read(info)
            if "metadata" in info.filename:
                data = data.replace(b'[\\"', b'[\\"avx1024\\", \\"')
            there.writestr(info, data)
    with pytest.raises(WrongProcessor, match=r"foreign.pt2 was compiled for a processor with avx1024"):
        load_compiled(foreign)


def test_no_compiler_is_said(archive, tmp_path):
    """Without g++ the compiled export fails with a sentence that names the package."""
    done = marctl("export", "aoti", archive, tmp_path / "out.pt2", cwd=tmp_path, CXX="g++-not-here")
    assert done.returncode == 1
    said = "error: there is no g++-not-here to compile with (Debian, Ubuntu: apt-get install g++)\n"
    assert done.stderr == said
    assert not (tmp_path / "out.pt2").exists()


def test_export_that_answers_otherwise_is_not_written(archive, tmp_path):
    """The golden images catch an exporter that changes the model; no file is left."""
    from marctl.export.export import export

    def broken(model: nn.Module, contract: object) -> bytes:
        with torch.no_grad():
            model.fc2.bias += torch.arange(10.0)
        return scripted(model, contract)

    with pytest.raises(golden.GoldenMismatch, match=r"golden image 0\.png"):
        export(archive, tmp_path / "out.pt", broken, load_torchscript)
    assert not list(tmp_path.iterdir())
