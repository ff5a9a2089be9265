"""Image files without a digit, of kinds that the model was trained on and of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from training import outliers
from training.image_files import LARGE, WHITE, Chance, file_of, on_paper

# Capitals except those that could be read as a digit: B, C, D, G, I, J, L, O, Q, S, Z.
LETTERS = "AEFHKMNPRTUVWXY"
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "away"]
CORNERS = 10  # of a zigzag

Draw = Callable[[np.ndarray, Chance], Image.Image]


@dataclass(frozen=True)
class Kind:
    """One kind of image without a digit; it is drawn from a digit (28, 28), which most kinds ignore."""

    name: str
    trained: bool  # whether the model was trained on it
    draw: Draw

    def __str__(self) -> str:
        return self.name

    def file(self, digit: np.ndarray, chance: Chance) -> bytes:
        """Return one image of the kind as a PNG file, in either polarity."""
        return file_of(on_paper(self.draw(digit, chance), chance), "PNG")


def _as_in_training(kind: Callable[[torch.Tensor], torch.Tensor]) -> Draw:
    """Return a function that draws as training does, with random numbers from `chance`."""

    def draw(digit: np.ndarray, chance: Chance) -> Image.Image:
        with torch.random.fork_rng():
            torch.manual_seed(int(chance.integers(2**31)))
            ink = kind(torch.from_numpy(digit[None, None] / np.float32(WHITE)))
        return _large(Image.fromarray((ink[0, 0].numpy() * WHITE).astype(np.uint8)))

    return draw


def _large(image: Image.Image) -> Image.Image:
    return image.resize((LARGE, LARGE), Image.Resampling.BICUBIC)


def _letter(_: np.ndarray, chance: Chance) -> Image.Image:
    sheet = Image.new("L", (LARGE, LARGE))
    font = ImageFont.load_default(size=int(chance.integers(60, 120)))
    letter = LETTERS[chance.integers(len(LETTERS))]
    ImageDraw.Draw(sheet).text((LARGE / 2, LARGE / 2), letter, fill=WHITE, font=font, anchor="mm")
    return sheet


def _text(_: np.ndarray, chance: Chance) -> Image.Image:
    sheet = Image.new("L", (LARGE, LARGE))
    size = int(chance.integers(12, 24))
    lines = [" ".join(chance.choice(WORDS, 4)) for _ in range(LARGE // size)]
    font = ImageFont.load_default(size=size)
    ImageDraw.Draw(sheet).multiline_text((4, 2), "\n".join(lines), fill=WHITE, font=font)
    return sheet


def _zigzag(_: np.ndarray, chance: Chance) -> Image.Image:
    sheet = Image.new("L", (LARGE, LARGE))
    corners = [tuple(point) for point in chance.uniform(0.1 * LARGE, 0.9 * LARGE, (CORNERS, 2)).tolist()]
    ImageDraw.Draw(sheet).line(corners, fill=WHITE, width=int(chance.integers(5, 12)), joint="curve")
    return sheet


def _chequers(_: np.ndarray, chance: Chance) -> Image.Image:
    side = int(chance.integers(LARGE // 10, LARGE // 3))
    fields = (np.arange(LARGE) + chance.integers(side)) // side % 2
    return Image.fromarray(((fields ^ fields[:, None]) * WHITE).astype(np.uint8))


def _clouds(_: np.ndarray, chance: Chance) -> Image.Image:
    layers = [_large(Image.fromarray(chance.uniform(0, 1, (n, n)).astype(np.float32))) for n in (3, 6, 12)]
    together = sum(np.asarray(layer) / 2**i for i, layer in enumerate(layers))
    low, high = np.min(together), np.max(together)
    return Image.fromarray(((together - low) / (high - low) * WHITE).astype(np.uint8))


KINDS = (
    Kind("blank", True, _as_in_training(lambda _: outliers.blank(1))),
    Kind("noise", True, _as_in_training(lambda _: outliers.noise(1))),
    Kind("stripes", True, _as_in_training(lambda _: outliers.stripes(1))),
    Kind("scribbles of curves", True, _as_in_training(lambda _: outliers.scribbles(1))),
    Kind("a digit cut into nine", True, _as_in_training(outliers.pieces)),
    Kind("letters and signs of a pen", True, _as_in_training(lambda _: outliers.letters(1))),
    Kind("letters of a font", False, _letter),
    Kind("printed text", False, _text),
    Kind("zigzags", False, _zigzag),
    Kind("chequers", False, _chequers),
    Kind("clouds", False, _clouds),
)
