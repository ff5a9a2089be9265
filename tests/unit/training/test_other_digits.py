"""Digits by other hands: strokes that can be drawn with any pen, and images to measure with."""

import gzip

import numpy as np
import pytest

from training import other_digits
from training.mnist import BadDataset
from training.other_digits import drawn, pen_strokes, semeion

DOWN = [np.array([[0.0, 0.0], [0.0, 10.0]])]
DIGITS = pen_strokes()


def test_semeions_digits_are_ink_or_paper():
    """793 images of 16 x 16 pixels of 0 and 255, with all digits; a 1 has less ink than an 8."""
    ink, labels = semeion()
    assert ink.shape == (793, 16, 16)
    assert ink.dtype == labels.dtype == np.uint8
    assert np.unique(ink).tolist() == [0, 255]
    assert np.bincount(labels).tolist() == [83, 84, 76, 81, 77, 67, 89, 81, 76, 79]
    inked = [ink[labels == digit].mean() for digit in (1, 8)]
    assert inked[0] < inked[1]


def test_strokes_have_labels():
    """7,494 digits of about 720 to 780 each, of strokes (M, 2) with at least one point."""
    labels = [label for _, label in DIGITS]
    assert np.bincount(labels).tolist() == [780, 779, 780, 719, 780, 720, 720, 778, 719, 719]
    assert all(len(stroke) and stroke.shape[1:] == (2,) for strokes, _ in DIGITS for stroke in strokes)


@pytest.mark.parametrize("digit", [1, 2, 7])
def test_pen_goes_downwards(digit):
    """These digits begin at the top and end at the bottom: y grows downwards, as in an image."""
    down = [strokes[0][0, 1] < strokes[0][-1, 1] for strokes, label in DIGITS if label == digit]
    assert np.mean(down) > 0.95


@pytest.mark.parametrize("pen", [1.0, 3.0, 6.5])
def test_pen_has_its_width_and_round_ends(pen):
    """A straight stroke has the area of a rectangle and a circle, and the length that was asked for."""
    ink = drawn(DOWN, 28, pen, 20 / 28) / 255
    assert ink.sum() == pytest.approx((20 - pen) * pen + np.pi * pen**2 / 4, rel=0.03)
    assert (ink.max(axis=1) > 0.25).sum() == 20
    assert ink[14].sum() == pytest.approx(pen, abs=0.25)
    np.testing.assert_array_equal(ink, ink[::-1])
    np.testing.assert_array_equal(ink, ink[:, ::-1])


def test_place_moves_the_digit():
    """Place 0 is at the left and the top, 1 at the right and the bottom; nothing is cut off."""
    corner = drawn(DOWN, 40, 4, 0.5, (0, 1))
    rows, columns = corner.nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 0, 3)
    assert corner.sum() == drawn(DOWN, 40, 4, 0.5).sum()


def test_drawn_digits_are_images_of_any_size():
    """Real strokes fill the share of the side, in the middle; a dot is a dot."""
    for side in (28, 100):
        ink = drawn(DIGITS[0][0], side, side / 10, 0.6)
        assert ink.shape == (side, side)
        assert ink.dtype == np.uint8
        assert ink.max() == 255
        rows, columns = (ink > 64).nonzero()
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(0.6 * side, abs=1.5)
        assert rows.min() + rows.max() == pytest.approx(side - 1, abs=2)
    dot = drawn([np.zeros((1, 2))], 28, 8, 0.5)
    assert dot.sum() / 255 == pytest.approx(np.pi * 16, rel=0.02)


@pytest.mark.parametrize(
    ("name", "read"),
    [(other_digits.STROKES, pen_strokes), (other_digits.IMAGES, semeion)],
    ids=["strokes", "images"],
)
def test_changed_or_missing_file_is_refused(name, read, tmp_path, monkeypatch):
    """If one byte differs, the error has both digests; if the file is missing, how to restore it."""
    data = bytearray(gzip.decompress((other_digits.FOLDER / f"{name}.gz").read_bytes()))
    monkeypatch.setattr(other_digits, "FOLDER", tmp_path)
    with pytest.raises(BadDataset, match=rf"{name}.gz is missing; restore it with: git"):
        read()
    data[-1] ^= 1
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data, 1))
    with pytest.raises(BadDataset, match=r"has the SHA-256 .*, the original has"):
        read()
