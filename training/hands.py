"""Ways of writing digits that MNIST hardly has: a 1 with a foot, a 7 with a bar, a 9 with a hook.

hands.json has each as strokes, which are lists of points [x, y] in a box of 1 by 1, y downwards; signs.json
has letters and other signs that are not digits. Both were drawn for this project. A trembling pen writes each
of them many times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from training.augmentation import MNIST_SHARE, SIDE, between

HERE = Path(__file__).parent
TREMBLE = 0.04  # deviation of each point, relative to the box's side
STEPS = 12  # from one point of a stroke to the next
PENS = (0.05, 0.11)  # half a stroke's width, relative to the box's height
WIDTHS = (0.5, 0.85)  # a digit's width, relative to its height

Stroke = list[list[float]]


def written(count: int, hands: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return digits (N, 1, 28, 28) like MNIST's, ink 1 on 0, and their labels int64 (N,).

    There are `count` of each way of writing, or of each of the first `hands`.
    """
    chosen = json.loads((HERE / "hands.json").read_text(encoding="utf-8"))[:hands]
    images = torch.cat([_written(hand["strokes"], count, hand.get("pen", PENS)) for hand in chosen])
    labels = torch.tensor([hand["label"] for hand in chosen]).repeat_interleave(count)
    return images, labels


def signs(count: int) -> torch.Tensor:
    """Return random letters and other signs (N, 1, 28, 28), none of them a digit, drawn like digits."""
    drawn = json.loads((HERE / "signs.json").read_text(encoding="utf-8"))
    chosen = torch.randint(len(drawn), (count,)).tolist()
    return torch.cat([_written(drawn[index]["strokes"], 1) for index in chosen])


def distance(places: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
    """Return each pixel's distance to the nearest of places (N, M, 2): (N, 1, S, S).

    `line` (S,) has the pixels' own places, both across and down.
    """
    across, down = ((line - places[..., i, None]) ** 2 for i in range(2))
    return (across[:, :, None, :] + down[:, :, :, None]).amin(dim=1)[:, None].sqrt()


def _written(strokes: list[Stroke], count: int, pens: Sequence[float] = PENS) -> torch.Tensor:
    points = {tuple(point) for stroke in strokes for point in stroke}
    # A point that two strokes share moves alike in both, so that they stay joined.
    trembling = {point: torch.tensor(point) + TREMBLE * torch.randn(count, 2) for point in sorted(points)}
    curves = [_curve(torch.stack([trembling[tuple(point)] for point in stroke], dim=1)) for stroke in strokes]
    size = torch.stack([between(count, *WIDTHS), torch.ones(count)], dim=1)[:, None]
    pen = between(count, *pens)[:, None, None]
    places = (torch.cat(curves, dim=1) - 0.5) * size * (1 - 2 * pen)
    return _inked(places * 2 * MNIST_SHARE, pen[..., None] * 2 * MNIST_SHARE)


def _curve(points: torch.Tensor) -> torch.Tensor:
    """Return a smooth curve (N, M, 2) through points (N, P, 2), a Catmull-Rom spline."""
    ends = torch.cat([points[:, :1], points, points[:, -1:]], dim=1)
    before, start, end, after = (ends[:, first : first + points.shape[1] - 1, None] for first in range(4))
    t = (torch.arange(STEPS + 1) / STEPS)[None, None, :, None]
    cubic = 3 * (start - end) + after - before
    square = 2 * before - 5 * start + 4 * end - after
    curve: torch.Tensor = start + 0.5 * t * (end - before + t * (square + t * cubic))
    return curve.flatten(1, 2)


def _inked(places: torch.Tensor, pen: torch.Tensor) -> torch.Tensor:
    """Return the ink (N, 1, 28, 28) of a pen, half its width given, along places (N, M, 2)."""
    line = (torch.arange(SIDE) * 2 + 1) / SIDE - 1
    return ((pen - distance(places, line)) * SIDE / 2 + 0.5).clamp(0, 1)
