"""The committed weights read MNIST, images as people send them, and other people's digits."""

import io
import json

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bench.load.images import encoded
from model.convnet import ConvNet
from tests.conftest import ROOT
from training.evaluate_real import OTHERS, SEED, Reader, files
from training.families import FAMILIES, MIDDLE
from training.hands import written
from training.mnist import load_test
from training.no_digit import KINDS
from training.train import Labelled, Material, Stage, fit, on_test_set

TARGET = 0.97
# Of the sets that were not made here.
LEAST = {"scikit-learn's digits": TARGET, "the same, in blocks": 0.96}
SOME = 200
FEW = 60
LEAST_OF_FAMILY = {"slashed zero": 0.85}  # the weights have not learned from any
TAKEN_FOR_DIGITS = {"scribbles of curves"}  # half of them
IMAGES, LABELS = load_test()


@pytest.fixture(scope="module")
def reader(contract):
    """A reader of image files with the committed weights."""
    return Reader(ROOT / "model" / "convnet.pth", contract)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_weights_read_each_family(family, reader):
    """At least 97 % of nearly each family at medium severity, for the first of evaluation's images."""
    count = 2 * SOME if family.most is None else family.most // 2
    order = np.random.default_rng(SEED).permutation(len(IMAGES))
    chosen = order[family.choice(LABELS[order], count)]
    made = files(family, family.severities[MIDDLE], IMAGES[chosen])
    assert reader.figures(made, LABELS[chosen])["accuracy"] >= LEAST_OF_FAMILY.get(family.name, TARGET)


@pytest.mark.parametrize("dark_ink", [True, False], ids=["black-on-white", "white-on-black"])
@pytest.mark.parametrize("other", [other for other in OTHERS if other.name in LEAST], ids=str)
def test_weights_read_other_peoples_digits(other, dark_ink, reader):
    """All of scikit-learn's digits (not MNIST's): 8 x 8 pixels, enlarged, in either polarity."""
    ink, truth = other.load()
    made = (other.file(image, dark_ink=dark_ink) for image in ink)
    assert reader.figures(made, truth)["accuracy"] >= LEAST[other.name]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_screenshots_of_plotted_digits_are_read(interpolation, reader):
    """What a notebook shows of an MNIST image: 251 x 248 pixels, with an alpha channel, ticks and numbers."""
    figure = Figure(figsize=(3, 3), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    bodies = []
    for digit in IMAGES[:FEW]:
        axes.clear()
        axes.imshow(digit, cmap="gray", interpolation=interpolation)
        file = io.BytesIO()
        figure.savefig(file, format="png", bbox_inches="tight")
        screen = Image.open(file).convert("RGBA").resize((251, 248), Image.Resampling.BICUBIC)
        bodies.append(encoded(screen, "PNG"))
    assert reader.figures(bodies, LABELS[:FEW])["accuracy"] >= 0.98


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name not in TAKEN_FOR_DIGITS], ids=str)
def test_weights_are_unsure_where_there_is_no_digit(kind, reader):
    """The median probability is below a half, also for kinds not seen in training."""
    chance = np.random.default_rng(2)
    sure = reader.probabilities(kind.file(digit, chance) for digit in IMAGES[:FEW]).max(axis=1)
    assert np.median(sure) < 0.5


def test_hands_write_what_their_labels_say(reader):
    """Nearly all synthetic handwriting is read as its label."""
    torch.manual_seed(0)
    digits, labels = written(5)
    drawn = (digits[:, 0].numpy() * 255).astype(np.uint8)
    bodies = (encoded(Image.fromarray(digit), "PNG") for digit in drawn)
    assert reader.figures(bodies, labels.numpy())["accuracy"] > TARGET


WEIGHTS = ROOT / "model" / "convnet.pth"
STAGES = (Stage(2, 56, 0.3, 2e-3, 1, 0), Stage(1, 64, 0.25, 1e-3, 2, 0))
LEAST_ACCURACY = 0.993
MOST_CALIBRATION_ERROR = 0.01


@pytest.fixture(scope="module")
def model():
    loaded = ConvNet()
    loaded.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return loaded.eval()


def test_weights_read_mnist(model, contract):
    """At least 99.3 % of the 10,000 test images, calibrated and as accurate as the saved figures say."""
    accuracy, calibration_error = on_test_set(model, contract)
    figures = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert accuracy >= LEAST_ACCURACY
    assert accuracy == pytest.approx(figures["test_accuracy"])
    assert calibration_error <= MOST_CALIBRATION_ERROR
    assert calibration_error == pytest.approx(figures["test_calibration_error"], abs=1e-4)


def test_training_learns_and_repeats_itself(contract):
    """Two trainings from one seed give the same weights, and the loss decreases."""
    images, labels = (part[:1000] for part in load_test())
    ink = torch.from_numpy(images[:, None] / np.float32(255))
    digits = Labelled(ink, torch.tensor(labels, dtype=torch.long))
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        runs.append(fit(Material(digits, digits, [digits, digits]), contract, STAGES))
    (first, course), (second, _) = runs
    assert course.loss[-1] < course.loss[0]
    assert course.plain[-1] > course.plain[0]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
