"""Outliers are images without a digit."""

import numpy as np
import torch
from torch.nn import functional

from training.augmentation import FINE, taken
from training.mnist import load_test
from training.outliers import outliers, pieces

SOME = 200
IMAGES, LABELS = load_test()
INK = torch.from_numpy(IMAGES[:SOME, None] / np.float32(255))


def test_outliers_are_no_digits():
    """There are six kinds, with ink from 0 to 1; only the first is blank; all can be photographed."""
    torch.manual_seed(0)
    ink = outliers(INK[:48])
    assert ink.shape == (48, 1, FINE, FINE)
    assert 0 <= ink.min() <= ink.max() <= 1
    assert not ink[:4].any()
    assert (ink[4:].mean(dim=(1, 2, 3)) > 0.02).all()
    assert taken(ink).shape == ink.shape


def test_pieces_are_those_of_the_digit_in_another_order():
    """The nine pieces are those of the digit's middle 24 x 24 pixels, enlarged, in another order."""
    torch.manual_seed(0)
    digit = torch.rand(1, 1, 28, 28)
    whole = functional.interpolate(digit[..., 2:26, 2:26], size=(54, 54), mode="bilinear")
    before, after = (_ninths(ink) for ink in (whole, pieces(digit)[..., 1:-1, 1:-1]))
    assert sorted(before) == sorted(after)
    assert before != after


def _ninths(ink):
    """Return the bytes of the nine squares of ink (1, 1, 54, 54)."""
    return [part.numpy().tobytes() for row in ink[0, 0].split(18) for part in row.split(18, dim=1)]
