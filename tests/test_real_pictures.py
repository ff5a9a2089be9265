"""Pictures as people send them: what training and evaluation make of digits, and what the weights read."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import real_report
from augmentation import (
    CENTRED_FILLS,
    CENTRED_SHIFT,
    FINE,
    as_sent,
    box,
    centre,
    coarsened,
    compressed,
    negated,
    penned,
    placed,
    taken,
)
from calibration import best_temperature, expected_calibration_error, fold
from conftest import ROOT
from evaluate_real import OTHERS, SEED, Reader, files, foreign
from families import FAMILIES, MIDDLE, PHONE
from hands import written
from images import read_pixels
from mnist import load_test
from no_digit import KINDS
from outliers import outliers, pieces
from pictures import encoded, opened
from train import BATCH, OUTLIERS, STAGES, varied

DOCS = ROOT / "docs"
TARGET = 0.97
IN_BLOCKS = 0.96  # scikit-learn's digits, enlarged so that each of their pixels is seen
SOME = 200
FEW = 60
BY_NAME = {family.name: family for family in FAMILIES}
TAKEN_FOR_DIGITS = {"scribbles of curves"}  # half of them
IMAGES, LABELS = load_test()
INK = torch.from_numpy(IMAGES[:SOME, None] / np.float32(255))


@pytest.fixture(scope="module")
def reader(contract):
    """The committed weights, asked by files."""
    return Reader(ROOT / "model" / "convnet.pth", contract)


def pixels_of(name, severity, contract, count=FEW):
    """Return a family's files as they are, in the model's size: float (N, 28, 28) from 0 to 1."""
    made = files(BY_NAME[name], BY_NAME[name].severities[severity], IMAGES[:count])
    return np.stack([read_pixels(body, replace(contract, ink=None)) for body in made])[..., 0] / 255


def edges(pixels):
    """Return the usual level of the picture's outermost pixels (N,): the paper's."""
    frame = np.ones((28, 28), dtype=bool)
    frame[1:-1, 1:-1] = False
    return np.median(pixels[:, frame], axis=1)


def extents(pixels):
    """Return how many rows and columns (N, 2) differ from the paper."""
    marks = abs(pixels - edges(pixels)[:, None, None]) > 0.3
    return np.stack([marks.any(axis=axis).sum(axis=1) for axis in (2, 1)], axis=1)


# --- The weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_weights_read_each_family(family, reader):
    """At least 97 % of the pictures of each family, at its middle severity: of evaluation's, the first."""
    count = 2 * SOME if family.most is None else family.most // 2
    chosen = np.random.default_rng(SEED).permutation(len(IMAGES))[:count]
    made = files(family, family.severities[MIDDLE], IMAGES[chosen])
    assert reader.figures(made, LABELS[chosen])["accuracy"] >= TARGET


@pytest.mark.parametrize("dark_ink", [True, False], ids=["black-on-white", "white-on-black"])
@pytest.mark.parametrize("way", OTHERS.values(), ids=["smooth", "blocks"])
def test_weights_read_other_peoples_digits(way, dark_ink, reader):
    """All of scikit-learn's digits, which are not MNIST's: 8 x 8 pixels, enlarged, in either polarity."""
    data = load_digits()
    made = (foreign(image, way, dark_ink=dark_ink) for image in data.images)
    least = IN_BLOCKS if way == Image.Resampling.NEAREST else TARGET
    assert reader.figures(made, data.target)["accuracy"] >= least


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name not in TAKEN_FOR_DIGITS], ids=str)
def test_weights_are_unsure_where_there_is_no_digit(kind, reader):
    """More often than not the probability is below a half, also of kinds that training never showed."""
    chance = np.random.default_rng(2)
    sure = reader.probabilities(kind.file(digit, chance) for digit in IMAGES[:FEW]).max(axis=1)
    assert np.median(sure) < 0.5


# --- The families --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["black on white", "transparent, black ink"])
def test_dark_ink_lies_on_light_paper(name, contract):
    """The paper is white, whatever the severity, and the ink is darker, less so with each."""
    darkest = []
    for severity in range(3):
        pixels = pixels_of(name, severity, contract)
        assert edges(pixels) == pytest.approx(1)
        darkest.append(pixels.min(axis=(1, 2)).mean())
    assert darkest[0] < 0.1
    assert darkest == sorted(darkest)


def test_white_ink_on_nothing_is_read_on_black(contract):
    """Transparent pictures in white ink come to the model as white on black."""
    pixels = pixels_of("transparent, white ink", MIDDLE, contract)
    assert edges(pixels) == pytest.approx(0)
    assert pixels.max(axis=(1, 2)).min() > 0.3


@pytest.mark.parametrize(
    "name", [name for name in BY_NAME if not name.startswith(("black", "transparent", "photo", "coloured"))]
)
def test_both_polarities_occur(name, contract):
    """Where the family does not say it, about half are dark on light."""
    light = edges(pixels_of(name, 0, contract)) > 0.5
    assert 0.3 < light.mean() < 0.7


@pytest.mark.parametrize(
    ("name", "sign"), [("thin", -1), ("thick", 1), ("small", -1), ("frame-filling", 1)], ids=str
)
def test_ink_changes_as_the_family_says(name, sign, contract):
    """Thin and small pictures have less ink with each severity, thick and large ones more."""
    ink = []
    for severity in range(3):
        pixels = pixels_of(name, severity, contract)
        ink.append(sign * abs(pixels - np.rint(edges(pixels))[:, None, None]).mean())
    plain = sign * (IMAGES[:FEW] / 255).mean()
    assert plain < ink[0] < ink[1] < ink[2]


def test_no_digit_falls_off_the_edge(contract):
    """Off centre, a digit of half the side touches an edge at most, and keeps its size."""
    pixels = pixels_of("off centre", 2, contract)
    longer = extents(pixels).max(axis=1)
    assert 12 <= longer.min() <= longer.max() <= 16
    assert abs(pixels - np.median(pixels, axis=(1, 2))[:, None, None])[:, [0, -1]].max() > 0.3


@pytest.mark.parametrize("name", BY_NAME)
def test_severities_differ_and_files_repeat(name, contract):
    """Each severity is another picture; the same call makes the same files."""
    mild, strong = (pixels_of(name, severity, contract, count=1) for severity in (0, 2))
    assert mild.shape == (1, 28, 28)
    assert not np.array_equal(mild, strong)
    assert np.array_equal(mild, pixels_of(name, 0, contract, count=1))


def test_photo_has_12_megapixels():
    """The photo is a JPEG in colour, of a phone's size, dark on light."""
    photo = opened(next(iter(files(BY_NAME["photo, 12 megapixels"], 0.5, IMAGES[:1]))))
    assert (photo.format, photo.mode, sorted(photo.size)) == ("JPEG", "RGB", sorted(PHONE))
    assert np.median(np.asarray(photo.reduce(50))) > 100


# --- What training sees --------------------------------------------------------------------------


def test_pictures_of_training_are_pictures():
    """Whatever is done to a digit, 28 x 28 numbers from 0 to 1 come out, half dark on light, and repeat."""
    torch.manual_seed(0)
    pictures = as_sent(INK)
    assert pictures.shape == INK.shape
    assert pictures.dtype == torch.float32
    assert 0 <= pictures.min() <= pictures.max() <= 1
    light = edges(pictures[:, 0].numpy()) > 0.5
    assert 0.3 < light.mean() < 0.7
    torch.manual_seed(0)
    assert torch.equal(as_sent(INK), pictures)


def test_batch_has_a_truth_for_each_picture(contract):
    """The digits of a batch keep their labels, in order; what holds no digit gets all labels alike."""
    torch.manual_seed(0)
    labels = torch.tensor(LABELS[:BATCH], dtype=torch.long)
    pictures, truth = varied(INK[:BATCH], labels, contract, STAGES[0])
    assert pictures.shape == (BATCH + OUTLIERS, 1, 28, 28)
    assert torch.equal(truth[:BATCH].argmax(dim=1), labels)
    torch.testing.assert_close(truth.sum(dim=1), torch.ones(len(truth)))
    torch.testing.assert_close(truth[BATCH:], torch.full((OUTLIERS, 10), 0.1))


def test_most_digits_are_placed_as_the_handler_does():
    """Their ink is in the middle and they have its size, or nearly; some are anywhere; none is cut off."""
    torch.manual_seed(0)
    fine = penned(INK)
    drawn = placed(fine)
    assert drawn.shape == (SOME, 1, FINE, FINE)
    middle, half = box(drawn)
    assert (middle.abs() + half <= 1.01).all()
    # A turned digit's box is smaller than its box, turned.
    in_the_middle = centre(drawn).abs().amax(dim=1) < CENTRED_SHIFT + 0.04
    as_handler = in_the_middle & (half.amax(dim=1) < CENTRED_FILLS[1])
    assert 0.75 < as_handler.float().mean() < 0.99
    assert (drawn.sum(dim=(1, 2, 3)) > 0.08 * fine.sum(dim=(1, 2, 3))).all()


def test_centre_is_the_mean_place_of_the_ink():
    """Of two squares, one three times as large: nearer to it; half the side is 1."""
    ink = torch.zeros(1, 1, 28, 28)
    ink[0, 0, 0:2, 0:2] = 1
    ink[0, 0, 26:28, 22:28] = 1
    expected = torch.tensor([[-13 + 3 * 11, -13 + 3 * 13]]) / 4 / 14
    torch.testing.assert_close(centre(ink), expected)


def test_hands_write_all_digits():
    """Each way of writing several times, each time a little different, in MNIST's size and place."""
    torch.manual_seed(0)
    digits, labels = written(5)
    assert digits.shape == (len(labels), 1, 28, 28)
    assert 0 <= digits.min() < digits.max() <= 1
    assert set(labels.tolist()) == set(range(10))
    assert len({digit.numpy().tobytes() for digit in digits}) == len(digits)
    middle, half = box(digits)
    assert (half[:, 1] * 28 - 20).abs().mean() < 2
    assert middle.abs().max() < 0.25


def test_hands_write_what_their_labels_say(reader):
    """Nearly all that a hand writes is read as its label says."""
    torch.manual_seed(0)
    digits, labels = written(5)
    drawn = (digits[:, 0].numpy() * 255).astype(np.uint8)
    bodies = (encoded(Image.fromarray(digit), "PNG") for digit in drawn)
    assert reader.figures(bodies, labels.numpy())["accuracy"] > TARGET


def test_box_is_where_the_ink_is():
    """The middle and half the size of a rectangle, across and down, in units of half the side."""
    ink = torch.zeros(1, 1, 28, 28)
    ink[0, 0, 4:12, 14:28] = 1
    middle, half = box(ink)
    torch.testing.assert_close(middle, torch.tensor([[0.5, -12 / 28]]))
    torch.testing.assert_close(half, torch.tensor([[0.5, 8 / 28]]))


def test_jpeg_is_lost_as_a_file_loses_it():
    """What training takes for JPEG of quality 50 and 10 is what Pillow's files are, within rounding."""
    for quality, steps in ((50, 1.0), (10, 5.0)):
        lost = compressed(INK[:FEW], torch.full((FEW,), steps)) * 255
        bodies = [encoded(Image.fromarray(image), "JPEG", quality=quality) for image in IMAGES[:FEW]]
        expected = np.stack([np.asarray(opened(body)) for body in bodies])
        assert abs(lost[:, 0].clamp(0, 255).numpy() - expected).mean() < 1


def test_half_of_the_pages_are_negated():
    """A page comes out as it was or turned round, nothing between."""
    torch.manual_seed(0)
    turned = negated(INK)
    as_it_was = torch.tensor([torch.equal(one, other) for one, other in zip(turned, INK, strict=True)])
    torch.testing.assert_close(turned[~as_it_was], 1 - INK[~as_it_was])
    assert 0.3 < as_it_was.float().mean() < 0.7


def test_coarse_pictures_have_few_levels_of_detail():
    """A digit that went through a few pixels fills its frame; noise has lost what lay between neighbours."""
    torch.manual_seed(0)
    few = coarsened(INK)
    _, half = box(few)
    assert half.amax(dim=1).mean() > 0.85
    assert 0 <= few.min() <= few.max() <= 1
    assert coarsened(torch.rand(20, 1, 56, 56)).diff(dim=-1).abs().mean() < 0.1


def test_outliers_are_no_digits():
    """Six kinds; ink from 0 to 1; the first is blank, all others have some; they can be photographed."""
    torch.manual_seed(0)
    ink = outliers(INK[:48])
    assert ink.shape == (48, 1, FINE, FINE)
    assert 0 <= ink.min() <= ink.max() <= 1
    assert not ink[:4].any()
    assert (ink[4:].mean(dim=(1, 2, 3)) > 0.02).all()
    assert taken(ink).shape == (48, 1, 28, 28)


def test_pieces_are_those_of_the_digit_in_another_order():
    """Each of the nine is one of the digit's, whose middle 24 x 24 pixels are enlarged; they have moved."""
    torch.manual_seed(0)
    digit = torch.rand(1, 1, 28, 28)
    whole = functional.interpolate(digit[..., 2:26, 2:26], size=(54, 54), mode="bilinear")
    before, after = (_ninths(ink) for ink in (whole, pieces(digit)[..., 1:-1, 1:-1]))
    assert sorted(before) == sorted(after)
    assert before != after


def _ninths(ink):
    """Return the bytes of the nine squares of ink (1, 1, 54, 54)."""
    return [part.numpy().tobytes() for row in ink[0, 0].split(18) for part in row.split(18, dim=1)]


# --- Calibration ---------------------------------------------------------------------------------


def test_calibration_error_is_the_distance_of_probability_and_truth():
    """0 where 80 of 100 answers with 80 % are right, 0.3 where 50 are; both halves count by their number."""
    probability = np.full(100, 0.8)
    assert expected_calibration_error(probability, np.arange(100) < 80) == pytest.approx(0)
    assert expected_calibration_error(probability, np.arange(100) < 50) == pytest.approx(0.3)
    both = np.concatenate([probability, np.full(300, 1.0)])
    right = np.concatenate([np.arange(100) < 50, np.ones(300, dtype=bool)])
    assert expected_calibration_error(both, right) == pytest.approx(0.3 / 4)


def test_temperature_is_found_and_folded_in():
    """Logits three times too large are found out; the last layer then gives a third, and the same answers."""
    torch.manual_seed(0)
    last = nn.Linear(8, 10)
    features = torch.randn(20_000, 8)
    true_logits = last(features).detach()
    labels = torch.distributions.Categorical(logits=true_logits).sample()
    temperature = best_temperature(torch.log_softmax(3 * true_logits, dim=1), labels)
    assert temperature == pytest.approx(3, rel=0.1)
    fold(2.0, last)
    torch.testing.assert_close(last(features), true_logits / 2)


# --- The page ------------------------------------------------------------------------------------


def test_page_says_what_was_measured(tmp_path, monkeypatch):
    """The tables of docs/real-pictures.md are those of the JSON files beside it."""
    page = tmp_path / "page.md"
    shutil.copy(DOCS / "real-pictures.md", page)
    monkeypatch.setattr(real_report, "PAGE", page)
    monkeypatch.setattr(real_report, "circumstances", lambda *_: "circumstances")
    monkeypatch.setattr(real_report, "draw", lambda *_: None)
    before, now = (json.loads((DOCS / f"real-pictures{part}.json").read_text()) for part in ("-before", ""))
    real_report.write_report(before, now)
    kept = (DOCS / "real-pictures.md").read_text().split("<!-- circumstances -->")[0]
    assert page.read_text().split("<!-- circumstances -->")[0] == kept
