"""The handwriting styles that training draws with have all digits."""

import torch

from training.augmentation import (
    box,
)
from training.hands import written


def test_hands_write_all_digits():
    """Each style is written several times, always a little different, in MNIST's size and place."""
    torch.manual_seed(0)
    digits, labels = written(5)
    assert digits.shape == (len(labels), 1, 28, 28)
    assert 0 <= digits.min() < digits.max() <= 1
    assert set(labels.tolist()) == set(range(10))
    assert len({digit.numpy().tobytes() for digit in digits}) == len(digits)
    middle, half = box(digits)
    assert (half[:, 1] * 28 - 20).abs().mean() < 2
    assert middle.abs().max() < 0.25
