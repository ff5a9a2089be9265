"""The model's runtimes, each measured in a separate process on one thread.

`python -m bench.runtimes RUNTIME FILE INPUTS OUTPUTS` is that process, for the runtimes that Python runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classifier.runtime.exported import Model, load_compiled, load_torchscript
from classifier.runtime.onnx import THREADS, load_onnx
from marctl.archive.opened import Opened

TENSORFLOW = Path(".venv-tensorflow") / "bin" / "python"
BATCHES = (1, 32)
REPEATS = 100  # calls per batch size; the median counts
WARM_UP = 10


@dataclass(frozen=True)
class Work:
    """MNIST's test images: as the model's inputs in an .npy file, and as PNG files."""

    inputs: Path
    images: list[Path]


@dataclass(frozen=True)
class Measured:
    """Outputs (N, labels); seconds to load; seconds an image by batch size."""

    outputs: np.ndarray
    load: float
    per_image: dict[str, float]

    @staticmethod
    def median(runs: Sequence[Measured]) -> Measured:
        """Return the median times of several runs, and the outputs of the first."""
        return Measured(
            runs[0].outputs,
            statistics.median(run.load for run in runs),
            {size: statistics.median(run.per_image[size] for run in runs) for size in runs[0].per_image},
        )


@dataclass(frozen=True)
class Runtime:
    """A name, the file that is run, and the function that runs it."""

    name: str
    file: Path
    run: Callable[[Work], Measured]

    def size(self) -> int:
        """Return the bytes of the file, or of all files in the folder."""
        files = self.file.rglob("*") if self.file.is_dir() else [self.file]
        return sum(file.stat().st_size for file in files if file.is_file())


def runtimes_of(archive: Path, exported: Path) -> list[Runtime]:
    """Return the eager model and all its exports."""
    stem = exported / archive.stem
    scripted, compiled, graph = (Path(f"{stem}.{suffix}") for suffix in ("scripted.pt", "pt2", "pb"))
    by_python = [
        ("PyTorch, eager", "eager", archive),
        ("TorchScript, scripted", "torchscript", scripted),
        ("TorchScript, traced", "torchscript", Path(f"{stem}.traced.pt")),
        ("AOTInductor", "aoti", compiled),
        ("ONNX Runtime", "onnx", Path(f"{stem}.onnx")),
    ]
    measure = (sys.executable, "-m", "bench.runtimes")
    tensorflow = (str(TENSORFLOW), "-P", "-m", "marctl", "run-tensorflow", str(graph))
    return [
        *(Runtime(name, file, _python(*measure, kind, str(file))) for name, kind, file in by_python),
        Runtime("TensorFlow", graph, _python(*tensorflow)),
        Runtime("C++, TorchScript", scripted, _cpp(exported / "classify", scripted)),
        Runtime("C++, AOTInductor", compiled, _cpp(exported / "classify", compiled)),
    ]


def _python(*command: str) -> Callable[[Work], Measured]:
    """Return a function that runs a program on .npy files of inputs and outputs, which prints its times."""

    def run(work: Work) -> Measured:
        out = work.inputs.with_name("outputs.npy")
        done = subprocess.run([*command, work.inputs, out], check=True, capture_output=True, text=True)
        return _measured(np.load(out), done.stdout)

    return run


def _cpp(program: Path, model: Path) -> Callable[[Work], Measured]:
    """Return a function that runs the C++ program on the image files, which it preprocesses itself."""

    def run(work: Work) -> Measured:
        command = [program, model]
        done = subprocess.run(
            [*command, "--outputs", *work.images], check=True, capture_output=True, text=True
        )
        outputs = [line.split("\t")[-1].split() for line in done.stdout.splitlines()]
        timed = subprocess.run(
            [*command, "--time", str(REPEATS), work.images[0]], check=True, capture_output=True, text=True
        )
        return _measured(np.array(outputs, dtype=np.float32), timed.stdout)

    return run


def _measured(outputs: np.ndarray, printed: str) -> Measured:
    times = json.loads(printed.splitlines()[-1])
    return Measured(outputs, times["load_seconds"], times["seconds_per_image"])


def main() -> None:
    """Write the outputs (N, labels) for a file of inputs (N, C, H, W), and print the times as JSON."""
    arguments = _arguments()
    logging.disable(logging.WARNING)
    os.environ[THREADS] = "1"
    began = time.perf_counter()
    model = LOADERS[arguments.runtime](arguments.file)
    load = time.perf_counter() - began
    batch = np.load(arguments.inputs)
    outputs = [model(batch[first : first + max(BATCHES)]) for first in range(0, len(batch), max(BATCHES))]
    seconds = {size: _seconds_per_image(model, batch[:size]) for size in BATCHES}
    np.save(arguments.outputs, np.concatenate(outputs))
    print(json.dumps({"load_seconds": load, "seconds_per_image": seconds}))


def _eager(archive: Path) -> Model:
    """Return the class with its weights, from an archive."""
    # Imported here: ONNX Runtime needs no torch, and its load is timed without it.
    from classifier.runtime.torch import as_function

    with Opened(archive) as opened:
        return as_function(opened.classifier.eager)


LOADERS: dict[str, Callable[[Path], Model]] = {
    "eager": _eager,
    "torchscript": load_torchscript,
    "onnx": load_onnx,
    "aoti": load_compiled,
}


def _seconds_per_image(model: Model, batch: np.ndarray) -> float:
    """Return the median time of a call, divided by the images in it."""
    times = []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        model(batch)
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:]) / len(batch)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runtime", choices=LOADERS)
    parser.add_argument("file", type=Path, help="the archive, or the exported file")
    parser.add_argument("inputs", type=Path, help="an .npy file, float32 (N, C, H, W)")
    parser.add_argument("outputs", type=Path, help="the .npy file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
