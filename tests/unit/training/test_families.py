"""Images as people send them, made from digits for the evaluation."""

from dataclasses import replace

import numpy as np
import pytest

from bench.load.images import opened
from classifier.image.decode import read_pixels
from tests.conftest import ROOT
from training.evaluate_real import files
from training.families import FAMILIES, MIDDLE, PHONE
from training.mnist import load_test

DOCS = ROOT / "docs"
SOME = 200
FEW = 60
BY_NAME = {family.name: family for family in FAMILIES}
IMAGES, LABELS = load_test()


def pixels_of(name, severity, contract, count=FEW):
    """Return a family's files without centring, in the model's size: float (N, 28, 28) from 0 to 1."""
    made = files(BY_NAME[name], BY_NAME[name].severities[severity], IMAGES[:count])
    return np.stack([read_pixels(body, replace(contract, ink=None)) for body in made])[..., 0] / 255


def edges(pixels):
    """Return the median level (N,) of each image's outermost pixels: the paper's."""
    frame = np.ones((28, 28), dtype=bool)
    frame[1:-1, 1:-1] = False
    return np.median(pixels[:, frame], axis=1)


def extents(pixels):
    """Return how many rows and columns (N, 2) differ from the paper."""
    marks = abs(pixels - edges(pixels)[:, None, None]) > 0.3
    return np.stack([marks.any(axis=axis).sum(axis=1) for axis in (2, 1)], axis=1)


@pytest.mark.parametrize("name", ["black on white", "transparent, black ink"])
def test_dark_ink_lies_on_light_paper(name, contract):
    """The paper is white at each severity; the ink is darker, but less so as severity rises."""
    darkest = []
    for severity in range(3):
        pixels = pixels_of(name, severity, contract)
        assert edges(pixels) == pytest.approx(1)
        darkest.append(pixels.min(axis=(1, 2)).mean())
    assert darkest[0] < 0.1
    assert darkest == sorted(darkest)


def test_white_ink_on_nothing_is_read_on_black(contract):
    """Transparent images in white ink reach the model as white on black."""
    pixels = pixels_of("transparent, white ink", MIDDLE, contract)
    assert edges(pixels) == pytest.approx(0)
    assert pixels.max(axis=(1, 2)).min() > 0.3


@pytest.mark.parametrize(
    "name", [name for name in BY_NAME if not name.startswith(("black", "transparent", "photo", "coloured"))]
)
def test_both_polarities_occur(name, contract):
    """If the family does not fix it, about half of the images are dark on light."""
    light = edges(pixels_of(name, 0, contract)) > 0.5
    assert 0.3 < light.mean() < 0.7


@pytest.mark.parametrize(
    ("name", "sign"), [("thin", -1), ("thick", 1), ("small", -1), ("frame-filling", 1)], ids=str
)
def test_ink_changes_as_the_family_says(name, sign, contract):
    """Thin and small images have less ink with each severity, thick and large ones more."""
    ink = []
    for severity in range(3):
        pixels = pixels_of(name, severity, contract)
        ink.append(sign * abs(pixels - np.rint(edges(pixels))[:, None, None]).mean())
    plain = sign * (IMAGES[:FEW] / 255).mean()
    assert plain < ink[0] < ink[1] < ink[2]


def test_no_digit_falls_off_the_edge(contract):
    """An off-centre digit of half the side at most touches an edge, and keeps its size."""
    pixels = pixels_of("off centre", 2, contract)
    longer = extents(pixels).max(axis=1)
    assert 12 <= longer.min() <= longer.max() <= 16
    assert abs(pixels - np.median(pixels, axis=(1, 2))[:, None, None])[:, [0, -1]].max() > 0.3


@pytest.mark.parametrize("name", BY_NAME)
def test_severities_differ_and_files_repeat(name, contract):
    """Each severity gives another image; the same call gives the same files."""
    mild, strong = (pixels_of(name, severity, contract, count=1) for severity in (0, 2))
    assert mild.shape == (1, 28, 28)
    assert not np.array_equal(mild, strong)
    assert np.array_equal(mild, pixels_of(name, 0, contract, count=1))


def test_photo_has_12_megapixels():
    """The photo is a colour JPEG of a phone's size, dark on light."""
    photo = opened(next(iter(files(BY_NAME["photo, 12 megapixels"], 0.5, IMAGES[:1]))))
    assert (photo.format, photo.mode, sorted(photo.size)) == ("JPEG", "RGB", sorted(PHONE))
    assert np.median(np.asarray(photo.reduce(50))) > 100
