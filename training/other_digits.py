"""Digits by other hands than MNIST's: the strokes of a pen, to train with, and images, to measure with.

other_digits_data/README.md names their sources. The strokes are of "Pen-Based Recognition of Handwritten
Digits", the images of "Semeion Handwritten Digit".
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from training.augmentation import MNIST_SHARE, between
from training.augmentation import SIDE as MODEL_SIDE
from training.mnist import checked

FOLDER = Path(__file__).with_name("other_digits_data")
STROKES, IMAGES = "pendigits-orig.tra", "semeion-half.data"
# SHA-256 of the files, uncompressed.
SHA256 = {
    STROKES: "a66225d68d7d68591e62944df1ad33b3f5aa608e2df2505844b41f5568a80da4",
    IMAGES: "67bc6696ada643c02f6ee457070e1ebd6d706a8eb7965d9e571c1c6b9ac3cbaa",
}
SIDE = 16  # pixels of Semeion's images
FULL = 255
PENS = (1.5, 4.0)  # widths in MNIST's pixels
FINER = 4  # a stroke is drawn with so many pixels for each of the image's, along a side

Strokes = list[np.ndarray]


def semeion() -> tuple[np.ndarray, np.ndarray]:
    """Return Semeion's images, uint8 (793, 16, 16), ink 255 on 0, and their labels, uint8 (793,)."""
    # A row has 256 pixels, then ten columns, one for each digit. All are 0 or 1.
    rows = np.array(_read(IMAGES).split(), dtype=np.uint8).reshape(-1, SIDE * SIDE + 10)
    labels = rows[:, SIDE * SIDE :].argmax(axis=1).astype(np.uint8)
    return rows[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE) * np.uint8(FULL), labels


def pen_strokes() -> list[tuple[Strokes, int]]:
    """Return 7,494 digits of 30 writers, each as its strokes and its label.

    A stroke is float64 (M, 2): x to the right and y downwards, in pixels of the tablet. The box that a digit
    was written into has 500 x 500.
    """
    digits = []
    for segment in _read(STROKES).split(".SEGMENT DIGIT")[1:]:
        head, *parts = segment.split(".PEN_DOWN")
        strokes = [_points(part.partition(".PEN_UP")[0]) for part in parts]
        digits.append((strokes, int(re.findall(r'"(\d)"', head)[0])))
    return digits


def drawn(
    strokes: Strokes, side: int, pen: float, share: float, place: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """Return the ink of a pen with round ends, uint8 (side, side), 255 where it is full, antialiased.

    `pen` is its width in pixels. The longer side of the ink, with the pen's width, is `share` of the image's.
    It is at a `place` from 0 to 1, across and down, where (0.5, 0.5) is the middle.
    """
    points = np.concatenate(strokes)
    start, extent = points.min(axis=0), np.ptp(points, axis=0)
    scale = max(share * side - pen, 0) / max(extent.max(), 1)
    shift = pen / 2 + (side - pen - extent * scale) * np.array(place)
    sheet = Image.new("L", (side * FINER, side * FINER))
    draw, width = ImageDraw.Draw(sheet), max(1, round(pen * FINER))
    for stroke in strokes:
        # Pillow counts from the middle of the first pixel.
        path = ((stroke - start) * scale + shift) * FINER - 0.5
        draw.line(path.ravel().tolist(), fill=FULL, width=width)
        for x, y in path.tolist():
            draw.circle((x, y), (width - 1) / 2, fill=FULL)
    return np.asarray(sheet.reduce(FINER))


def written_by_pen(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pen's digits as MNIST has them, float32 (N, 1, 28, 28), ink 1 on 0, and labels int64 (N,).

    Each of the 7,494 is written `count` times, with a pen of another width each time.
    """
    digits = pen_strokes() * count
    pens = between(len(digits), *PENS).tolist()
    images = [
        drawn(strokes, MODEL_SIDE, pen, MNIST_SHARE) for (strokes, _), pen in zip(digits, pens, strict=True)
    ]
    labels = torch.tensor([label for _, label in digits])
    return torch.from_numpy(np.stack(images)[:, None] / np.float32(FULL)), labels


def _read(name: str) -> str:
    return checked(FOLDER / f"{name}.gz", SHA256[name]).decode("ascii")


def _points(text: str) -> np.ndarray:
    """Return the points (M, 2) of a stroke, whose y grows upwards in the file."""
    return np.array(text.split(), dtype=np.float64).reshape(-1, 2) * (1, -1)
