"""Images without a digit, for training: the model learns to be unsure of them.

Ink as in augmentation.py, float32 (N, 1, 56, 56), to be put on paper and photographed like the digits.
Evaluation adds other kinds (no_digit.py).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from training.augmentation import FINE, between, column
from training.hands import distance, signs

CURVES = 3  # strokes of a scribble
CURVE_POINTS = 32
NOISE_SIDES = (7, 14, 28, 56)
PARTS = 12  # of a batch, shared by the kinds


def outliers(digits: torch.Tensor) -> torch.Tensor:
    """Return ink (N, 1, 56, 56) without a digit, six kinds, as many as there are digits (N, 1, 28, 28).

    N is a multiple of twelve. Some of the digits are cut to pieces, the others are not used. Pen strokes are
    hardest to distinguish from a digit, and most frequent.
    """
    part = len(digits) // PARTS
    kinds = blank(part), noise(part), stripes(part), scribbles(3 * part), letters(4 * part)
    return torch.cat([*kinds, pieces(digits[: 2 * part])])


def blank(count: int) -> torch.Tensor:
    """Return no ink."""
    return torch.zeros(count, 1, FINE, FINE)


def noise(count: int) -> torch.Tensor:
    """Return fine or coarse noise."""
    side = NOISE_SIDES[int(torch.randint(len(NOISE_SIDES), ()))]
    return F.interpolate(torch.rand(count, 1, side, side), size=(FINE, FINE), mode="bilinear")


def stripes(count: int) -> torch.Tensor:
    """Return stripes in any direction, hard or soft."""
    angle, length = column(between(count, 0, 3.2)), column(between(count, 4, 40))
    line = torch.arange(FINE) * 6.3
    waves = torch.sin((torch.cos(angle) * line + torch.sin(angle) * line[:, None]) / length)
    return (waves * column(between(count, 1, 5)) + 0.5).clamp(0, 1)


def scribbles(count: int) -> torch.Tensor:
    """Return a few crossing curves, which form a digit only by chance."""
    ends = torch.rand(count, CURVES, 4, 1, 2) * 1.6 - 0.8
    t = torch.linspace(0, 1, CURVE_POINTS)[:, None]
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    strokes = sum((weight * ends[:, :, i] for i, weight in enumerate(weights)), torch.zeros(()))
    near = distance(strokes.flatten(1, 2), torch.linspace(-1, 1, FINE))
    return ((column(between(count, 0.05, 0.11)) - near) * 20 + 0.5).clamp(0, 1)


def letters(count: int) -> torch.Tensor:
    """Return letters and other signs, drawn with a pen of any width."""
    return F.interpolate(signs(count), size=(FINE, FINE), mode="bilinear")


def pieces(digits: torch.Tensor) -> torch.Tensor:
    """Return digits cut into nine pieces, in another order."""
    fine = F.interpolate(digits[..., 2:26, 2:26], size=(54, 54), mode="bilinear")
    parts = fine.view(-1, 1, 3, 18, 3, 18).transpose(3, 4).reshape(-1, 9, 18, 18)
    parts = parts[:, torch.randperm(9)].view(-1, 1, 3, 3, 18, 18).transpose(3, 4)
    return F.pad(parts.reshape(-1, 1, 54, 54), (1, 1, 1, 1))
