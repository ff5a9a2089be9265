"""A drawing is brought to the right size and place, white on black; an image without ink is only resized."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from bench.load.images import encoded
from classifier.contract import BadContract, Contract
from classifier.image.centring import GRID, centred, in_place
from classifier.image.decode import read_pixels
from tests.support.images import on_sheet
from training.families import filling
from training.mnist import load_test

SIZE, SIDE = (28, 28), 20
IMAGES = load_test()[0][:50]
WHITE = 255
INKED = 90  # grey levels
ALIKE = 0.8  # the cosine between a digit's pixels and those of the same digit drawn in another size


def resized(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize(SIZE, Image.Resampling.BILINEAR))


def negative(image: Image.Image) -> Image.Image:
    return image.point(lambda level: WHITE - level)


def likeness(seen: np.ndarray, digit: np.ndarray) -> float:
    """Return the cosine between two images at their best alignment."""
    moves = [(down, across) for down in range(-2, 3) for across in range(-2, 3)]
    ink = digit.astype(float)
    products = [(np.roll(seen, move, (0, 1)) * ink).sum() for move in moves]
    return max(products) / float(np.linalg.norm(ink) * np.linalg.norm(seen.astype(float)))


class Ink(NamedTuple):
    """Where a drawing's ink is."""

    width: int
    height: int
    x: float  # the mean place
    y: float


def ink_of(seen: np.ndarray) -> Ink:
    """Return where the white is in what the model sees."""
    rows, columns = np.nonzero(seen >= INKED)
    return Ink(np.ptp(columns) + 1, np.ptp(rows) + 1, columns.mean() + 0.5, rows.mean() + 0.5)


@pytest.mark.parametrize("dark_ink", [False, True], ids=["white-on-black", "black-on-white"])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0, 0), (1, 0), (0.2, 1)], ids=str)
@pytest.mark.parametrize("sheet", [(140, 140), (640, 480), (300, 900), (60, 60)], ids=str)
def test_digit_anywhere_is_seen_like_one_in_the_middle(sheet, place, dark_ink):
    """A digit a third of the sheet's size, in the middle or a corner, gives nearly MNIST's own pixels."""
    for digit in IMAGES[:10]:
        image = on_sheet(digit, sheet, min(sheet) // 2, place)
        seen = centred(negative(image) if dark_ink else image, SIZE, SIDE)
        ink = ink_of(seen)
        assert abs(max(ink.width, ink.height) - SIDE) <= 2
        assert (ink.x, ink.y) == pytest.approx((14, 14), abs=2)
        assert likeness(seen, digit) > ALIKE


def test_both_polarities_are_seen_alike():
    """A negative gives the same image but for rounding, at full contrast, however faint it is."""
    for digit in IMAGES[:20]:
        image = on_sheet(digit, (140, 140), 70, (0.2, 0.3)).point(lambda level: 60 + level // 4)
        seen = centred(image, SIZE, SIDE)
        assert (seen.min(), seen.max()) == (0, WHITE)
        assert likeness(seen, centred(negative(image), SIZE, SIDE)) > 0.99


def test_images_like_mnists_stay_as_they_are():
    """Nearly all of MNIST's digits are in place already; their negatives become white on black."""
    there = [digit for digit in IMAGES if in_place(digit, SIDE) is not None]
    assert len(there) >= 0.95 * len(IMAGES)
    for digit in there:
        image = Image.fromarray(digit)
        assert np.array_equal(centred(image, SIZE, SIDE), digit)
        assert np.array_equal(centred(negative(image), SIZE, SIDE), digit)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.9, 1.0])
def test_small_images_are_prepared_too(share):
    """A digit that has another size in an image of the model's own gets the right one."""
    for digit in IMAGES[:10]:
        image = filling(digit, share).resize(SIZE, Image.Resampling.BOX)
        ink = ink_of(centred(image, SIZE, SIDE))
        assert abs(max(ink.width, ink.height) - SIDE) <= 2


def test_sheet_that_is_no_square_is_not_squeezed():
    """A square ring on a sheet twice as wide as high stays square, even if its height is right already."""
    for half in (50, 71):
        image = Image.new("L", (400, 200), WHITE)
        for level, edge in ((0, half), (WHITE, half - 15)):
            image.paste(level, (200 - edge, 100 - edge, 200 + edge, 100 + edge))
        ink = ink_of(centred(image, SIZE, SIDE))
        assert ink.width == ink.height == pytest.approx(20, abs=1)


@pytest.mark.parametrize(
    "levels",
    [
        np.full((100, 120), 180),
        180 + np.arange(12_000).reshape(100, 120) % 20,  # too faint for the eye
        220 - 30 * (np.hypot(*np.ogrid[-1:1:99j, -1:1:99j]) ** 2),  # empty, with a lamp above it
        np.tile(np.linspace(30, 220, 120), (100, 1)),  # empty, lit from one side
    ],
    ids=["even", "faint", "lamp", "light"],
)
def test_sheet_without_ink_stays_whole(levels):
    """If nothing is drawn, the whole image is resized."""
    image = Image.fromarray(levels.astype(np.uint8))
    assert np.array_equal(centred(image, SIZE, SIDE), resized(image))


def test_light_from_one_side_hides_nothing():
    """A digit in a corner is found in light that falls off to about a third."""
    light = np.linspace(1, 0.35, 280)
    for digit in IMAGES[:10]:
        ink = np.asarray(on_sheet(digit, (280, 280), 140, (0, 1))) / WHITE
        image = Image.fromarray(((230 - 200 * ink) * light).astype(np.uint8))
        found = ink_of(centred(image, SIZE, SIDE))
        assert abs(max(found.width, found.height) - SIDE) <= 2


def test_contract_says_whether_images_are_prepared(contract):
    """Images of any size and format are, if the contract has input.ink; else they are only resized."""
    corner = on_sheet(IMAGES[0], (140, 140), 70, (0, 0))
    small = resized(corner)
    seen = centred(Image.fromarray(small), SIZE, SIDE)
    assert not np.array_equal(seen, small)
    unprepared = replace(contract, ink=None)
    for body in (encoded(Image.fromarray(small), "PNG"), encoded(Image.fromarray(small), "BMP")):
        assert np.array_equal(read_pixels(body, contract)[..., 0], seen)
        assert np.array_equal(read_pixels(body, unprepared)[..., 0], small)
    assert np.array_equal(read_pixels(encoded(corner, "PNG"), unprepared)[..., 0], small)
    assert likeness(read_pixels(encoded(corner, "PNG"), contract)[..., 0], IMAGES[0]) > ALIKE


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), fill=st.nothing()))
@settings(deadline=None)
def test_any_image_becomes_one_of_the_models_size(levels):
    """An image of any content and shape gives uint8 (H, W), the same each time."""
    seen = centred(Image.fromarray(levels), (28, 20), 16)
    assert (seen.shape, seen.dtype) == ((20, 28), np.uint8)
    assert np.array_equal(seen, centred(Image.fromarray(levels), (28, 20), 16))


@pytest.mark.parametrize("sheet", [(1, 5000), (5000, 1), (3, 4000), (6000, 4000)], ids=str)
def test_long_and_large_sheets_are_read(sheet):
    """One dark pixel, or many, on sheets larger than those that are examined at full size."""
    assert max(sheet) > GRID
    image = Image.new("L", sheet, 200)
    image.paste(0, (0, 0, max(1, sheet[0] // 5), max(1, sheet[1] // 5)))
    assert centred(image, SIZE, SIDE).shape == (28, 28)


@pytest.mark.parametrize(("paper", "ink"), [(230, 20), (20, 230)], ids=["dark-ink", "light-ink"])
def test_paper_goes_on_beyond_the_edge(paper, ink):
    """What is added beyond the edge is paper, even if a bar's ink covers more than a quarter of the edge."""
    image = Image.new("L", (100, 100), paper)
    image.paste(ink, (20, 0, 80, 100))
    seen = centred(image, SIZE, SIDE)
    assert not seen[:3].any()
    assert not seen[-3:].any()
    assert seen[14, 14] == WHITE


def test_frame_filling_digits_get_paper_around_them():
    """A digit that touches the edges of its image is seen as the same one with a margin."""
    for digit in IMAGES[:20]:
        seen = centred(filling(digit, 1.0), SIZE, SIDE)
        ink = ink_of(seen)
        assert abs(max(ink.width, ink.height) - SIDE) <= 1
        assert likeness(seen, digit) > ALIKE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ink": 0}, "input.ink is 0; write the length in pixels of a drawing's longer side, from 2 to 28"),
        ({"ink": 29}, "input.ink is 29"),
        ({"ink": True}, "input.ink is True"),
        ({"ink": "20"}, "input.ink is '20'"),
        ({"resize": 32}, "input.ink needs color grayscale and no resize"),
        ({"color": "rgb", "mean": [0.1] * 3, "std": [0.3] * 3}, "input.ink needs color grayscale"),
    ],
    ids=str,
)
def test_bad_ink_is_named(change, message):
    """The error says what the contract has and what to write."""
    spec = {"color": "grayscale", "size": [28, 28], "ink": 20, "mean": [0.1], "std": [0.3]} | change
    with pytest.raises(BadContract, match=message.replace("[", r"\[")):
        Contract.from_config({"input": spec, "labels": ["a", "b"]})
