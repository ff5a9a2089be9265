"""Run a frozen graph on an array of images, and measure it on one thread.

Prints one line of JSON: load_seconds (reading the graph and its first answer, with TensorFlow already
imported), import_seconds (importing TensorFlow), and seconds_per_image by batch size.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marctl.errors import UserError

if TYPE_CHECKING:
    from marctl.export.frozen_graph import FrozenGraph

BATCHES = (1, 32)
IMAGES = 640  # per measurement, in batches of either size
REPEATS = 7
CHUNK = 512  # images answered at once; this bounds the memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the graph, the images, and where the outputs go."""
    parser.add_argument("graph", type=Path, help="a frozen graph, .pb")
    parser.add_argument("images", type=Path, help="an .npy file, float32 (N, C, H, W), normalised")
    parser.add_argument("outputs", type=Path, help="the .npy file to write: float32 (N, labels)")


def run(arguments: argparse.Namespace) -> int:
    """Write the outputs and print the measurements."""
    images = read_images(arguments.images)
    print(json.dumps(measured(arguments.graph, images, arguments.outputs)))
    return 0


def read_images(path: Path) -> np.ndarray:
    """Return an .npy file's float32 (N, C, H, W). Raises UserError."""
    try:
        images = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; give an .npy file") from error
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is not an .npy file of numbers ({error}); write it with numpy.save"
        ) from error
    if not isinstance(images, np.ndarray) or images.dtype != np.float32 or images.ndim != 4:  # noqa: PLR2004
        came = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else "several arrays"
        raise UserError(f"{path} contains {came}; give one array float32 (N, C, H, W)")
    if not len(images):
        raise UserError(f"{path} contains no image; give at least one")
    return images


def measured(graph_file: Path, images: np.ndarray, outputs: Path) -> dict[str, Any]:
    """Write the outputs of all images as .npy and return the measurements."""
    # Imported here, so that a bad array is reported without waiting for TensorFlow.
    import_seconds, frozen_graph = _timed(lambda: importlib.import_module("marctl.export.frozen_graph"))
    load_seconds, graph = _timed(lambda: _load(frozen_graph.FrozenGraph, graph_file, images))
    with graph:
        answers = [graph(images[first : first + CHUNK]) for first in range(0, len(images), CHUNK)]
        with outputs.open("wb") as file:
            np.save(file, np.concatenate(answers))
        speed = {str(size): _seconds_per_image(graph, images, size) for size in BATCHES}
        return {
            "engine": f"TensorFlow {frozen_graph.tf.__version__}",
            "images": len(images),
            "import_seconds": import_seconds,
            "load_seconds": load_seconds,
            "seconds_per_image": speed,
        }


def _load(open_graph: Callable[..., FrozenGraph], file: Path, images: np.ndarray) -> FrozenGraph:
    """Open the graph on one thread and let it answer once."""
    graph = open_graph(file, threads=1)
    if list(images.shape[1:]) != graph.shape[1:]:
        raise UserError(f"the images are {list(images.shape[1:])}, but {file} takes {graph.shape[1:]}")
    graph(images[:1])
    return graph


def _seconds_per_image(graph: FrozenGraph, images: np.ndarray, size: int) -> float:
    """Return the median over several repeats, each of some hundred images in batches of `size`."""
    chosen = np.resize(images, (IMAGES, *images.shape[1:]))  # repeated if there are fewer
    batches = [chosen[first : first + size] for first in range(0, IMAGES, size)]
    graph(batches[0])  # the first batch of a size is slower: memory is allocated for it
    times = [_timed(lambda: [graph(batch) for batch in batches])[0] for _ in range(REPEATS)]
    return statistics.median(times) / IMAGES


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result
