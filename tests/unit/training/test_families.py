"""Images as people send them, made from digits for the evaluation."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

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
# Families that fix the polarity, and those whose images have other things than paper at their edges.
ONE_POLARITY, OTHER_EDGES = ("black", "transparent", "photo", "coloured", "ballpoint"), ("plot", "margin")
IMAGES, LABELS = load_test()


def pixels_of(name, severity, contract, count=FEW):
    """Return a family's files without centring, in the model's size: float (N, 28, 28) from 0 to 1."""
    family = BY_NAME[name]
    made = files(family, family.severities[severity], IMAGES[family.choice(LABELS, count)])
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
    "name", [name for name in BY_NAME if not name.startswith((*ONE_POLARITY, *OTHER_EDGES))]
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


def test_family_chooses_the_first_digits_that_it_draws():
    """They are as many as were asked for, but no more than the family has or takes."""
    labels = np.array([0, 5, 0, 1, 0])
    family = replace(BY_NAME["noisy"], digits=(0, 1), most=3)
    assert family.choice(labels, 2).tolist() == [0, 2]
    assert family.choice(labels, 9).tolist() == [0, 2, 3]
    assert replace(family, most=None).choice(labels, 9).tolist() == [0, 2, 3, 4]
    assert BY_NAME["noisy"].choice(labels, 4).tolist() == [0, 1, 2, 3]


def ink_of(image, digit):
    """Return where a black and white image, in either polarity, has the ink of this digit: bool (H, W)."""
    levels = np.asarray(image)
    rows, columns = (digit > 128).nonzero()
    crop = Image.fromarray(digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    alike = ((levels > 128) == (np.asarray(crop.resize(image.size)) > 128)).mean()
    return (levels if alike > 0.5 else 255 - levels) > 64


def test_cut_digits_touch_their_four_edges():
    """Ink lies along the edges; each takes more with each severity, and a 1 keeps some paper beside it."""
    sizes = []
    for severity in BY_NAME["cut by its frame"].severities:
        made = [opened(body) for body in files(BY_NAME["cut by its frame"], severity, IMAGES[:FEW])]
        sizes.append([image.size for image in made])
        for image, digit, label in zip(made, IMAGES, LABELS, strict=False):
            inked = ink_of(image, digit)
            assert inked[[0, -1]].any(axis=1).all()
            assert label == 1 or inked[:, [0, -1]].any(axis=0).all()
            assert inked.mean() < 0.8
    assert (np.diff(sizes, axis=0) == -6).all()
    assert (np.divide(*np.array(sizes[0]).T) > 0.32).all()


def test_files_by_others_have_mnists_size_only():
    """They are 28 x 28; the digit is as large as the severity says, anywhere, on paper that is not white."""
    family = BY_NAME["28 x 28 by others"]
    for severity in family.severities:
        made = np.stack([opened(body) for body in files(family, severity, IMAGES[:SOME])]).astype(float)
        assert made.shape == (SOME, 28, 28)
        paper = np.where(np.median(made, axis=(1, 2)) > 128, made.max(axis=(1, 2)), made.min(axis=(1, 2)))
        assert ((paper < 61) | ((paper > 214) & (paper < 251))).all()
        assert 0.35 < (paper > 128).mean() < 0.65
        inked = abs(made - paper[:, None, None]) > 0.35 * abs(made - paper[:, None, None]).max()
        extent = extents(np.where(inked, 1.0, 0.0)).max(axis=1)
        assert np.median(extent) == pytest.approx(severity * 28, abs=1)
        rows = np.array([np.mean(one.nonzero()[0]) for one in inked])
        assert np.ptp(rows) > 0.8 * 28 * (1 - severity)


def test_ballpoint_is_thin_and_hardly_darker_than_the_paper():
    """The ink is darker by the severity's grey levels, blue or grey, and thinner than MNIST's."""
    family = BY_NAME["ballpoint on grey paper"]
    for severity in family.severities:
        made = [opened(body) for body in files(family, severity, IMAGES[:FEW])]
        grey = np.stack([image.convert("L") for image in made]).astype(float)
        paper = np.median(grey, axis=(1, 2))
        assert ((paper > 130) & (paper < 210)).all()
        apart = paper[:, None, None] - grey
        assert np.median(apart.max(axis=(1, 2))) == pytest.approx(severity, abs=12)
        assert 0.2 < (apart > severity / 2).mean() / (IMAGES[:FEW] > 128).mean() < 0.8
        darkest = apart.reshape(FEW, -1).argmax(axis=1)
        colours = np.stack([image.convert("RGB") for image in made]).reshape(FEW, -1, 3).astype(int)
        blue = np.array([one[at, 2] - one[at, 0] for one, at in zip(colours, darkest, strict=True)])
        assert 0.3 < (blue > severity / 4).mean() < 0.7


def test_slash_goes_through_the_middle_and_beyond():
    """A zero's middle is inked; with each severity more of the corners, lower left and upper right, is."""
    family = BY_NAME["slashed zero"]
    zeros = IMAGES[family.choice(LABELS, FEW)]
    assert (LABELS[family.choice(LABELS, FEW)] == 0).all()
    reach = []
    for severity in family.severities:
        made = np.stack([opened(body) for body in files(family, severity, zeros)]).astype(float)
        inked = abs(made - np.median(made[:, 0], axis=1)[:, None, None]) > 128
        corners = np.array([[one.nonzero()[0].min(), one.nonzero()[0].max()] for one in inked])
        reach.append(np.ptp(corners, axis=1).mean())
        slashed = inked[:, 60:80, 60:80].any(axis=(1, 2))
        assert slashed.mean() > 0.95
        upper_right, lower_left = inked[:, :55, 75:].sum(), inked[:, 85:, :65].sum()
        assert upper_right + lower_left > inked[:, :55, :65].sum() + inked[:, 85:, 75:].sum()
    assert reach[0] <= reach[1] < reach[2]


def test_photo_has_12_megapixels():
    """The photo is a colour JPEG of a phone's size, dark on light."""
    photo = opened(next(iter(files(BY_NAME["photo, 12 megapixels"], 0.5, IMAGES[:1]))))
    assert (photo.format, photo.mode, sorted(photo.size)) == ("JPEG", "RGB", sorted(PHONE))
    assert np.median(np.asarray(photo.reduce(50))) > 100
