"""The roads that have a file of their own: each runs in a process of its own, on one thread."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROAD = Path(__file__).with_name("road.py")
TENSORFLOW = Path(".venv-tensorflow") / "bin" / "python"
REPEATS = "100"  # calls whose median counts


@dataclass(frozen=True)
class Work:
    """MNIST's test pictures: as the model's inputs in an .npy file, and as PNG files."""

    inputs: Path
    pictures: list[Path]


@dataclass(frozen=True)
class Measured:
    """Outputs (N, labels); seconds to load; seconds a picture by batch size."""

    outputs: np.ndarray
    load: float
    per_picture: dict[str, float]

    @staticmethod
    def median(runs: Sequence[Measured]) -> Measured:
        """Return the median times of several runs, and the outputs of the first."""
        return Measured(
            runs[0].outputs,
            statistics.median(run.load for run in runs),
            {size: statistics.median(run.per_picture[size] for run in runs) for size in runs[0].per_picture},
        )


@dataclass(frozen=True)
class Road:
    """A name, the file that is run, and how."""

    name: str
    file: Path
    run: Callable[[Work], Measured]

    def size(self) -> int:
        """Return the bytes of the file, or of all in the folder."""
        files = self.file.rglob("*") if self.file.is_dir() else [self.file]
        return sum(file.stat().st_size for file in files if file.is_file())


def exported_roads(archive: Path, exported: Path) -> list[Road]:
    """Return the eager model and all exports of it."""
    stem = exported / archive.stem
    scripted, compiled = Path(f"{stem}.scripted.pt"), Path(f"{stem}.pt2")
    by_torch = [
        ("PyTorch, eager", "eager", archive),
        ("TorchScript, scripted", "torchscript", scripted),
        ("TorchScript, traced", "torchscript", Path(f"{stem}.traced.pt")),
        ("AOTInductor", "aoti", compiled),
        ("ONNX Runtime", "onnx", Path(f"{stem}.onnx")),
    ]
    graph = Path(f"{stem}.pb")
    runner = (sys.executable, str(ROAD))
    return [
        *(Road(name, file, _python(*runner, kind, str(file))) for name, kind, file in by_torch),
        Road("TensorFlow", graph, _python(str(TENSORFLOW), "exports/run_tensorflow.py", str(graph))),
        Road("C++, TorchScript", scripted, _cpp(exported / "classify", scripted)),
        Road("C++, AOTInductor", compiled, _cpp(exported / "classify", compiled)),
    ]


def _python(*command: str) -> Callable[[Work], Measured]:
    """Return what runs a program that takes inputs and outputs as .npy files and prints its times."""

    def run(work: Work) -> Measured:
        out = work.inputs.with_name("outputs.npy")
        done = subprocess.run([*command, work.inputs, out], check=True, capture_output=True, text=True)
        return _measured(np.load(out), done.stdout)

    return run


def _cpp(program: Path, model: Path) -> Callable[[Work], Measured]:
    """Return what runs the C++ program on the picture files, which it prepares itself."""

    def run(work: Work) -> Measured:
        command = [program, model]
        done = subprocess.run(
            [*command, "--outputs", *work.pictures], check=True, capture_output=True, text=True
        )
        outputs = [line.split("\t")[-1].split() for line in done.stdout.splitlines()]
        timed = subprocess.run(
            [*command, "--time", REPEATS, work.pictures[0]], check=True, capture_output=True, text=True
        )
        return _measured(np.array(outputs, dtype=np.float32), timed.stdout)

    return run


def _measured(outputs: np.ndarray, printed: str) -> Measured:
    told = json.loads(printed.splitlines()[-1])
    return Measured(outputs, told["load_seconds"], told["seconds_per_picture"])
