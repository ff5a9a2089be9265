"""The TensorFlow exports give the archive's answers, in an environment without torch."""

import json
import subprocess

import numpy as np
import onnx
import pytest

from classifier.contract import Contract
from classifier.runtime.torch import as_function
from tests.conftest import IMAGES, ROOT, export
from training import mnist

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("exported")]

PYTHON = ROOT / ".venv-tensorflow" / "bin" / "python"
ONNX, GRAPH, SAVED_MODEL = (ROOT / "exported" / f"convnet.{kind}" for kind in ("onnx", "pb", "savedmodel"))
BATCHES = (1, 7, 32)
# Log-probabilities reach -63, where a step of float32 is 4e-6, and each engine sums in another order.
TOLERANCE = 5e-5

# What a user of the files would write: only TensorFlow, nothing from this project.
FROZEN = """
import sys, numpy, tensorflow as tf
definition = tf.compat.v1.GraphDef.FromString(open(sys.argv[1], "rb").read())
images = numpy.load(sys.argv[2])
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    tf.import_graph_def(definition, name="")
    numpy.savez(sys.argv[3], **{
        str(size): session.run("output:0", {"input:0": images[:size]}) for size in map(int, sys.argv[4:])
    })
"""
SIGNATURE = """
import sys, numpy, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
images = tf.constant(numpy.load(sys.argv[2]))
classify = loaded.signatures["serving_default"]
numpy.savez(sys.argv[3], **{
    str(size): classify(input=images[:size])["output"].numpy() for size in map(int, sys.argv[4:])
})
"""


CHECK = """
import sys
from pathlib import Path
from marctl.export import onnx_file, to_tensorflow
onnx, saved_model, graph = map(Path, sys.argv[1:])
source = onnx_file.read(onnx)
images = to_tensorflow.golden_batch(Path("tests/images"), source)
to_tensorflow.check(source, saved_model, graph, images)
"""


@pytest.fixture(scope="module")
def exported():
    """The exports, as `make tensorflow` builds them."""
    done = export("tensorflow")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def images(contract):
    """MNIST's test images, as the model takes them."""
    return contract.normalize(mnist.load_test()[0][..., None])


@pytest.fixture(scope="module")
def expected(engine, images):
    """The archive's answers to them."""
    return as_function(engine.eager)(images)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The conversion of a model with one changed bias: its result, its folder, its source before."""
    folder = tmp_path_factory.mktemp("converted")
    model = onnx.load(ONNX)
    bias = next(one for one in model.graph.initializer if one.name == "fc2.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 0.01
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, folder / "changed.onnx")
    before = state_of(folder / "changed.onnx")
    return convert(folder / "changed.onnx", folder), folder, before


def state_of(file):
    """Return a file's bytes and modification time."""
    return file.read_bytes(), file.stat().st_mtime_ns


def run(*arguments):
    """Run Python in TensorFlow's environment."""
    command = [PYTHON, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, check=False)


def measured(graph, images, outputs):
    """Run a frozen graph on an array, with measurements."""
    return run("-P", "-m", "marctl", "run-tensorflow", graph, images, outputs)


def convert(source, folder, golden=IMAGES):
    """Convert an ONNX file into a folder."""
    words = [source, folder / "s", folder / "g.pb", "--golden", golden]
    return run("-P", "-m", "marctl", "to-tensorflow", *words)


def test_ten_thousand_images_are_answered_as_by_the_archive(images, expected, tmp_path):
    """All of MNIST's test images, in a TensorFlow 1 session; the program prints its measurements."""
    np.save(tmp_path / "images.npy", images)
    done = measured(GRAPH, tmp_path / "images.npy", tmp_path / "outputs.npy")
    assert (done.returncode, done.stderr) == (0, "")
    outputs = np.load(tmp_path / "outputs.npy")
    assert outputs.dtype == np.float32
    assert (outputs.argmax(axis=1) == expected.argmax(axis=1)).sum() == len(expected) == 10_000
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=TOLERANCE)
    told = json.loads(done.stdout)
    assert told["images"] == 10_000
    assert told["load_seconds"] > 0
    assert all(told["seconds_per_image"][size] > 0 for size in ("1", "32"))


@pytest.mark.parametrize(
    "files", [(FROZEN, GRAPH), (SIGNATURE, SAVED_MODEL)], ids=["frozen graph", "SavedModel"]
)
def test_batches_of_any_size(images, expected, tmp_path, files):
    """Batches of 1, 7 and 32 images (N, C, H, W) work with TensorFlow alone, by tensor name."""
    np.save(tmp_path / "images.npy", images[: max(BATCHES)])
    done = run("-c", *files, tmp_path / "images.npy", tmp_path / "outputs.npz", *BATCHES)
    assert done.returncode == 0, done.stderr
    outputs = np.load(tmp_path / "outputs.npz")
    assert sorted(outputs) == sorted(map(str, BATCHES))
    for size in BATCHES:
        np.testing.assert_allclose(outputs[str(size)], expected[:size], rtol=0, atol=TOLERANCE)


def test_saved_model_carries_the_contract(contract):
    """The SavedModel alone is enough to scale an image and name its label."""
    said = json.loads((SAVED_MODEL / "assets" / "contract.json").read_text())
    assert Contract.from_dict(said) == contract


def test_nothing_is_built_twice():
    """A second `make tensorflow` does not change the files."""
    before = GRAPH.stat().st_mtime_ns
    done = export("tensorflow")
    assert (done.returncode, done.stdout) == (0, "")
    assert GRAPH.stat().st_mtime_ns == before


def test_conversion_tells_what_it_built_and_leaves_its_source_alone(converted):
    """It prints only files, sizes and tensors; the ONNX file is not changed."""
    done, folder, before = converted
    assert (done.returncode, done.stderr) == (0, "")
    graph, saved_model, check = done.stdout.splitlines()
    assert graph.endswith(f"{(folder / 'g.pb').stat().st_size:,} bytes, from input:0 to output:0")
    assert saved_model.endswith("bytes, serving_default from input to output")
    assert " of ONNX (allowed " in check
    assert state_of(folder / "changed.onnx") == before
    assert {file.name for file in folder.iterdir()} == {"changed.onnx", "s", "g.pb"}


@pytest.mark.parametrize("kind", ["frozen graph", "SavedModel"])
def test_export_that_answers_otherwise_is_refused(converted, kind):
    """Compared with an ONNX file with one changed bias, either file alone fails the check."""
    folder = converted[1]
    files = (SAVED_MODEL, folder / "g.pb") if kind == "frozen graph" else (folder / "s", GRAPH)
    done = run("-c", CHECK, ONNX, *files)
    assert done.returncode == 1
    assert f"UserError: the {kind} differs from ONNX by" in done.stderr


def without_contract(model):
    del model.metadata_props[:]


def damaged_contract(model):
    model.metadata_props[0].value = "{}"


def fixed_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_contract, "has no contract; export it with: make onnx"),
        (damaged_contract, "is damaged ('color'); export it with: make onnx"),
        (fixed_batch, "takes only batches of 1; export a dynamic batch"),
    ],
    ids=["no contract", "damaged contract", "fixed batch"],
)
def test_unsuitable_onnx_is_refused(tmp_path, change, said):
    """One sentence says what the ONNX file lacks, with the command that makes a good one."""
    model = onnx.load(ONNX)
    change(model)
    onnx.save(model, tmp_path / "changed.onnx")
    refused(convert(tmp_path / "changed.onnx", tmp_path), said)
    assert not (tmp_path / "g.pb").exists()


def test_what_is_no_onnx_is_refused(tmp_path):
    """A missing file, a file of another kind, and a folder without images are refused."""
    (tmp_path / "text.onnx").write_text("hello")
    refused(convert(tmp_path / "none.onnx", tmp_path), "No such file or directory; export it with: make onnx")
    refused(convert(tmp_path / "text.onnx", tmp_path), "text.onnx is not an ONNX model")
    (tmp_path / "empty").mkdir()
    refused(convert(ONNX, tmp_path, golden=tmp_path / "empty"), "contains no image to check the export with")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 1, 4, 4)), "contains float64 (2, 1, 4, 4); give one array float32 (N, C, H, W)"),
        (np.zeros((0, 1, 4, 4), np.float32), "contains no image"),
        (np.zeros((2, 1, 4, 4), np.float32), "the images are [1, 4, 4]"),
        (None, "is not an .npy file of numbers"),
    ],
    ids=["float64", "empty", "other size", "text"],
)
def test_unsuitable_array_is_refused(tmp_path, array, said):
    """The error says what came and what to send, and there are no outputs."""
    file = tmp_path / "images.npy"
    file.write_text("hello")
    if array is not None:
        np.save(file, array)
    refused(measured(GRAPH, file, tmp_path / "outputs.npy"), said)
    assert not (tmp_path / "outputs.npy").exists()


def test_what_is_no_graph_is_refused(images, tmp_path):
    """A file other than a frozen graph is named, with the command that makes one."""
    np.save(tmp_path / "images.npy", images[:1])
    done = measured(ONNX, tmp_path / "images.npy", tmp_path / "outputs.npy")
    refused(done, "convnet.onnx is not a frozen graph from input:0 to output:0")


def refused(done, said):
    """Assert one sentence on stderr and no traceback."""
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
