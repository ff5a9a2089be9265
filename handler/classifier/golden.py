"""The archive's self-test: real images, and the answers that the eager model gave at build time.

A worker runs them when it loads. They reveal swapped weights, a changed constant or a broken kernel before a
client does, and they warm up the model for the first request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # programs without numpy use the names below, too
    import numpy as np

FOLDER = "golden"
ANSWERS = "golden.json"
# Float32 sums depend on their order: eager at batch 1 and at batch 100 already differ by 1e-5.
TOLERANCE = 2e-5


class GoldenMismatch(RuntimeError):
    """The archive does not answer as it did when it was built."""


@dataclass(frozen=True)
class Golden:
    """One image file of the archive and its outputs (labels,), computed in float64."""

    path: Path
    label: str
    outputs: tuple[float, ...]


def read(folder: Path) -> list[Golden]:
    """Return the golden answers of an unpacked archive; none if it was built without."""
    answers = folder / ANSWERS
    if not answers.exists():
        return []
    images = json.loads(answers.read_text(encoding="utf-8"))["pictures"]
    return [
        Golden(folder / FOLDER / name, one["label"], tuple(one["outputs"])) for name, one in images.items()
    ]


def check(golden: list[Golden], answer: Callable[[list[bytes]], np.ndarray], labels: tuple[str, ...]) -> None:
    """Compare outputs (N, labels) for the golden images with the recorded ones.

    Raises GoldenMismatch with the image, the expected outputs and the actual ones.
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
                f"got {got} {shown(tuple(output.tolist()))}; they differ by {difference:.2g}, at most "
                f"{TOLERANCE:.0e} is allowed. The weights, the contract or the code differ from the build's"
            )


def shown(outputs: tuple[float, ...]) -> str:
    """Return the first outputs of an image as text for a message."""
    most = 10
    more = ", ..." if len(outputs) > most else ""
    return "[" + ", ".join(f"{value:.5f}" for value in outputs[:most]) + more + "]"
