"""Turn the ONNX export into a TensorFlow SavedModel and a frozen graph, and check both.

It uses onnx2tf, which still gets releases: onnx-tf is abandoned, and litert-torch starts from a PyTorch
module, so it needs torch beside TensorFlow. 1.29.24 is the newest that pip finds for Python 3.11. It pins
TensorFlow 2.19; requirements/tensorflow.overrides.txt lifts that, and the check below proves that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from classifier.image.decode import read_pixels
from marctl.errors import UserError
from marctl.export import onnx_file
from marctl.export.onnx_file import OnnxFile

# Batch sizes that both files must answer: 1, one that no memory layout is made for, and one for throughput.
BATCHES = (1, 7, 32)
# Log-probabilities reach -60, where a float32 step is 4e-6, and both sides sum in different orders.
TOLERANCE = 5e-5
CONTRACT_FILE = "contract.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the ONNX file, and the files to write."""
    parser.add_argument("onnx", type=Path, help="the ONNX file")
    parser.add_argument("saved_model", type=Path, help="the folder to write")
    parser.add_argument("graph", type=Path, help="the .pb file to write")
    parser.add_argument("--golden", type=Path, required=True, help="a folder of images to check with")


def run(arguments: argparse.Namespace) -> int:
    """Write both files and print a summary."""
    source = onnx_file.read(arguments.onnx)
    images = golden_batch(arguments.golden, source)
    with _scratch(arguments.graph) as scratch:
        saved_model, graph = scratch / "savedmodel", scratch / "graph.pb"
        export(source, saved_model, graph)
        difference = check(source, saved_model, graph, images)
        shutil.rmtree(arguments.saved_model, ignore_errors=True)
        saved_model.rename(arguments.saved_model)
        graph.rename(arguments.graph)
    report(arguments.saved_model, arguments.graph, difference)
    return 0


def golden_batch(folder: Path, source: OnnxFile) -> np.ndarray:
    """Return a folder's images, repeated up to the largest batch and normalised: float32 (N, C, H, W).

    Raises BadImage, and UserError if there is no image.
    """
    files = sorted(path for path in folder.glob("*") if path.is_file())
    if not files:
        raise UserError(f"{folder} contains no image to check the export with; name a folder: GOLDEN=")
    pixels = np.stack([read_pixels(file.read_bytes(), source.contract) for file in files])
    return np.resize(source.contract.normalize(pixels), (max(BATCHES), *source.contract.shape))


def export(source: OnnxFile, saved_model: Path, graph: Path) -> None:
    """Write the SavedModel, with the contract among its assets, and the frozen graph."""
    # Imported here and below, so that bad input is reported without waiting for TensorFlow.
    from marctl.export.frozen_graph import INPUT, OUTPUT
    from marctl.export.quiet_tensorflow import freeze, tf

    module = tf.Module()
    module.keras = keras_model(source)  # a SavedModel finds its variables from here
    module.classify = tf.function(
        lambda batch: {OUTPUT: tf.identity(module.keras(batch), name=OUTPUT)},
        input_signature=[tf.TensorSpec((None, *source.shape), tf.float32, name=INPUT)],
    )
    classify = module.classify.get_concrete_function()
    with tempfile.TemporaryDirectory() as folder:
        contract = Path(folder) / CONTRACT_FILE
        contract.write_text(source.contract_json, encoding="utf-8")
        module.contract = tf.saved_model.Asset(str(contract))
        tf.saved_model.save(module, str(saved_model), signatures=classify)
    frozen = freeze(classify).graph.as_graph_def()
    # TensorFlow adds an output of its own after ours.
    graph_to_output = tf.compat.v1.graph_util.extract_sub_graph(frozen, [OUTPUT])
    graph.write_bytes(graph_to_output.SerializeToString(deterministic=True))


def keras_model(source: OnnxFile) -> Any:
    """Return the ONNX model as a Keras one with the same input, (N, C, H, W). Raises UserError."""
    import onnx2tf

    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed):
        copy = shutil.copy(source.path, folder)  # it writes names of its own into its input file
        try:
            return onnx2tf.convert(
                input_onnx_file_path=copy,
                output_folder_path=folder,  # for its TensorFlow Lite files, which are not used
                keep_ncw_or_nchw_or_ncdhw_input_names=[source.input],  # else the input becomes NHWC
                not_use_onnxsim=True,  # torch's exporter has already simplified it
                output_signaturedefs=True,
                non_verbose=True,
            )
        except (Exception, SystemExit) as error:  # it exits if it cannot continue
            raise UserError(f"onnx2tf cannot convert {source.path}: {error}\n{printed.getvalue()}") from error


def check(source: OnnxFile, saved_model: Path, graph: Path, images: np.ndarray) -> float:
    """Compare both files, as written, with ONNX's reference implementation.

    Returns the largest difference. Raises UserError with the file, the batch and the difference.
    """
    expected = source.reference(images)
    differences = [
        _difference(name, answer, images[:size], expected[:size])
        for name, answer in _engines(saved_model, graph)
        for size in BATCHES
    ]
    return max(differences)


def _engines(saved_model: Path, graph: Path) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    from marctl.export.frozen_graph import INPUT, OUTPUT, FrozenGraph
    from marctl.export.quiet_tensorflow import tf

    with FrozenGraph(graph) as session:
        yield "the frozen graph", session
    loaded = tf.saved_model.load(str(saved_model))  # its variables live as long as it does
    signature = loaded.signatures["serving_default"]
    yield "the SavedModel", lambda batch: signature(**{INPUT: tf.constant(batch)})[OUTPUT].numpy()


def _difference(
    name: str, answer: Callable[[np.ndarray], np.ndarray], batch: np.ndarray, expected: np.ndarray
) -> float:
    answers = answer(batch)
    if answers.shape != expected.shape:
        raise UserError(f"{name} answers {batch.shape} with {answers.shape}, ONNX with {expected.shape}")
    difference = float(np.abs(answers - expected).max())
    if not difference <= TOLERANCE:  # "not", so that NaN fails
        raise UserError(
            f"{name} differs from ONNX by {difference:.2g} in a batch of {len(batch)}; "
            f"allowed is {TOLERANCE:.0e}"
        )
    return difference


def report(saved_model: Path, graph: Path, difference: float) -> None:
    """Print both files, their sizes and tensors, and how much they differ from ONNX."""
    from marctl.export.frozen_graph import INPUT, OUTPUT

    size = sum(file.stat().st_size for file in saved_model.rglob("*") if file.is_file())
    batches = ", ".join(str(batch) for batch in BATCHES)
    print(f"built {graph}, {graph.stat().st_size:,} bytes, from {INPUT}:0 to {OUTPUT}:0")
    print(f"built {saved_model}, {size:,} bytes, serving_default from {INPUT} to {OUTPUT}")
    print(f"  batches of {batches}: within {difference:.1e} of ONNX (allowed {TOLERANCE:.0e})")


@contextlib.contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    """Yield a folder on the same disk as the result, so that an interrupted build leaves no partial file."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=beside.parent) as folder:
        yield Path(folder)
