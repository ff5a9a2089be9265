"""Image files drawn from MNIST's digits: what the families share.

A family takes one of MNIST's test digits, uint8 (28, 28), and returns the bytes of a file.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from training.augmentation import SEEN, SIDE

SCALE = 5  # pixels drawn for each of MNIST's, along a side
LARGE = SIDE * SCALE
WHITE = 255
PHONE_QUALITY = 85
PHONE_TINT = (1.0, 0.97, 0.9)  # of a lamp: the share of red, green and blue in its light
LUMINANCE = np.array([0.299, 0.587, 0.114])

Chance = np.random.Generator


@dataclass(frozen=True)
class Family:
    """One way in which images differ from MNIST's, at three severities from mild to strong."""

    name: str
    meaning: str  # what a severity's number means
    severities: tuple[float, float, float]
    draw: Callable[[np.ndarray, float, Chance], bytes]
    most: int | None = None  # images per severity, if each takes long
    digits: tuple[int, ...] = tuple(range(10))  # those that it draws

    def choice(self, labels: np.ndarray, count: int) -> np.ndarray:
        """Return the indices of the first `count`, or `most`, labels that the family draws: int64 (M,)."""
        count = count if self.most is None else min(count, self.most)
        return np.isin(labels, self.digits).nonzero()[0][:count]


def enlarged(digit: np.ndarray, side: int = LARGE) -> Image.Image:
    """Return the digit's ink as an L image (side, side), 255 where it is full."""
    return Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)


def inked(ink: Image.Image) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom of the ink in an L image; right and bottom are not included."""
    box = ink.point(lambda level: WHITE * (level > SEEN * WHITE)).getbbox()
    if box is None:
        raise ValueError(f"an image of {ink.size} pixels has no ink")
    return box


def filling(digit: np.ndarray, share: float, place: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Return an L image (140, 140) of ink whose longer side fills `share` of it, at a place from 0 to 1."""
    large = enlarged(digit)
    crop = large.crop(inked(large))
    scale = share * LARGE / max(crop.size)
    crop = crop.resize([max(1, round(length * scale)) for length in crop.size], Image.Resampling.BICUBIC)
    sheet = Image.new("L", (LARGE, LARGE))
    room = [LARGE - length for length in crop.size]
    sheet.paste(crop, (round(room[0] * place[0]), round(room[1] * place[1])))
    return sheet


def on_paper(ink: Image.Image, chance: Chance, dark: float = 0.0, light: float = WHITE) -> np.ndarray:
    """Return grey levels float (H, W): dark on light, or light on dark."""
    share = np.asarray(ink, dtype=np.float32) / WHITE
    return light + (dark - light) * share if chance.integers(2) else dark + (light - dark) * share


def file_of(levels: np.ndarray, kind: str, **options: object) -> bytes:
    """Return grey levels (H, W), or colours (H, W, 3), from 0 to 255 as a file of that format."""
    return encoded(Image.fromarray(np.clip(np.rint(levels), 0, WHITE).astype(np.uint8)), kind, **options)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file of that format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def thinned(ink: Image.Image, pixels: float) -> Image.Image:
    """Take this many of MNIST's pixels off the strokes' width; what would vanish stays as it is."""
    size = _odd(pixels)
    eroded = ink.filter(ImageFilter.MinFilter(size))
    lost = ImageChops.subtract(ink, eroded.filter(ImageFilter.MaxFilter(size)))
    return ImageChops.lighter(eroded, lost)


def thickened(ink: Image.Image, pixels: float) -> Image.Image:
    """Add this many of MNIST's pixels to the strokes' width."""
    return ink.filter(ImageFilter.MaxFilter(_odd(pixels)))


def across(width: int, height: int, chance: Chance) -> np.ndarray:
    """Return each pixel's position along a random direction, from -1 to 1: float32 (H, W)."""
    angle = chance.uniform(0, 2 * np.pi)
    right = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(np.cos(angle))
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    return (right + down) / np.float32(abs(np.cos(angle)) + abs(np.sin(angle)))


def _odd(pixels: float) -> int:
    """Return the side of a filter that removes or adds this many of MNIST's pixels, half on either side."""
    return 2 * round(pixels * SCALE / 2) + 1
