"""Answer a batch by one road in a process of its own, on one thread, and say how long it took."""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine import Engine
from onnx_model import THREADS, load_onnx
from runtimes import Model, load_compiled, load_torchscript

BATCHES = (1, 32)
REPEATS = 100  # calls of each batch size, whose median counts
WARM_UP = 10

def open_eager(archive: Path) -> Model:
    """Return the class with its weights, out of an archive."""
    # Only this road and torch's other two need torch.
    from torch_model import as_function

    return as_function(Engine(archive).eager)


ROADS: dict[str, Callable[[Path], Model]] = {
    "eager": open_eager,
    "torchscript": load_torchscript,
    "onnx": load_onnx,
    "aoti": load_compiled,
}


def main() -> None:
    """Write the outputs (N, labels) for a file of inputs (N, C, H, W), and print the times as JSON."""
    arguments = _arguments()
    logging.disable(logging.WARNING)
    os.environ[THREADS] = "1"
    began = time.perf_counter()
    model = ROADS[arguments.road](arguments.file)
    load = time.perf_counter() - began
    batch = np.load(arguments.inputs)
    outputs = [model(batch[first : first + max(BATCHES)]) for first in range(0, len(batch), max(BATCHES))]
    seconds = {size: seconds_per_picture(model, batch[:size]) for size in BATCHES}
    np.save(arguments.outputs, np.concatenate(outputs))
    print(json.dumps({"load_seconds": load, "seconds_per_picture": seconds}))


def seconds_per_picture(model: Model, batch: np.ndarray) -> float:
    """Return the median time of a call, divided by the pictures in it."""
    times = []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        model(batch)
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:]) / len(batch)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("road", choices=ROADS)
    parser.add_argument("file", type=Path, help="the archive, or the exported file")
    parser.add_argument("inputs", type=Path, help="an .npy file, float32 (N, C, H, W)")
    parser.add_argument("outputs", type=Path, help="the .npy file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
