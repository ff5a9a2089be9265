"""The archive's proof of itself: real images, and the answers that the eager model gave at build time.

A worker runs them when it loads. Swapped weights, a changed constant or a broken kernel show up there,
before a client meets them; and the first request finds everything warm.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the names below are also for programs that do without numpy
    import numpy as np

FOLDER = "golden"
ANSWERS = "golden.json"
# Float32 sums in another order: eager at batch 1 and at batch 100 already differ by 1e-5.
TOLERANCE = 2e-5


class GoldenMismatch(RuntimeError):
    """The archive does not answer as it did when it was built."""


@dataclass(frozen=True)
class Golden:
    """One image file of the archive and its outputs (labels,), from float64 arithmetic."""

    path: Path
    label: str
    outputs: tuple[float, ...]


def read(folder: Path) -> list[Golden]:
    """Return the golden answers of an unpacked archive, none where it was built without."""
    answers = folder / ANSWERS
    if not answers.exists():
        return []
    images = json.loads(answers.read_text(encoding="utf-8"))["pictures"]
    return [
        Golden(folder / FOLDER / name, one["label"], tuple(one["outputs"])) for name, one in images.items()
    ]


def check(golden: list[Golden], answer: Callable[[list[bytes]], np.ndarray], labels: tuple[str, ...]) -> None:
    """Hold outputs (N, labels) for the golden images against the recorded ones.

    Raises GoldenMismatch with the image, what was expected and what came.
    """
    import numpy as np

    if not golden:
        return
    outputs = answer([one.path.read_bytes() for one in golden]).astype(np.float64)
    for one, output in zip(golden, outputs, strict=True):
        difference = float(np.abs(output - np.array(one.outputs)).max())
        got = labels[int(output.argmax())]
        if got != one.label or not difference <= TOLERANCE:  # "not", so that NaN is a mismatch
            raise GoldenMismatch(
                f"golden image {one.path.name}: expected {one.label} {shown(one.outputs)}, "
                f"got {got} {shown(tuple(output.tolist()))}; they differ by {difference:.2g}, allowed is "
                f"{TOLERANCE:.0e}. The weights, the contract or the code are not those of the build"
            )


def shown(outputs: tuple[float, ...]) -> str:
    """Return the first outputs of an image as a sentence has them."""
    most = 10
    more = ", ..." if len(outputs) > most else ""
    return "[" + ", ".join(f"{value:.5f}" for value in outputs[:most]) + more + "]"
