"""The network, its weights and how they came about."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from ts.utils.util import list_classes_from_module

import convnet as convnet_module
from augmentation import distort
from conftest import ROOT
from convnet import ConvNet
from mnist import load_test
from train import Labelled, Stage, fit, on_test_set

WEIGHTS = ROOT / "model" / "convnet.pth"
STAGES = (Stage(2, 56, 0.3, 2e-3, 1, 29), Stage(1, 64, 0.25, 1e-3, 2, 40))
LEAST_ACCURACY = 0.993
MOST_CALIBRATION_ERROR = 0.01


@pytest.fixture(scope="module")
def model():
    loaded = ConvNet()
    loaded.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return loaded.eval()


def test_weights_read_mnist(model, contract):
    """At least 99.3 % of the 10,000 test images, as sure as they are right, as the saved figures say."""
    accuracy, calibration_error = on_test_set(model, contract)
    figures = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert accuracy >= LEAST_ACCURACY
    assert accuracy == pytest.approx(figures["test_accuracy"])
    assert calibration_error <= MOST_CALIBRATION_ERROR
    assert calibration_error == pytest.approx(figures["test_calibration_error"], abs=1e-4)


def test_outputs_are_log_probabilities(model):
    """Each row of the output sums to one as probabilities."""
    outputs = model(torch.rand(3, 1, 28, 28))
    assert outputs.shape == (3, 10)
    torch.testing.assert_close(outputs.exp().sum(dim=1), torch.ones(3))


def test_older_weights_load():
    """A state_dict with the parameters cn1, cn2, fc1 and fc2 loads as it is."""
    shapes = {
        "cn1.weight": (16, 1, 3, 3), "cn1.bias": (16,), "cn2.weight": (32, 16, 3, 3), "cn2.bias": (32,),
        "fc1.weight": (64, 4608), "fc1.bias": (64,), "fc2.weight": (10, 64), "fc2.bias": (10,),
    }  # fmt: skip
    ConvNet().load_state_dict({name: torch.zeros(shape) for name, shape in shapes.items()}, strict=True)


def test_file_holds_one_class():
    """TorchServe refuses a model file with more than one class."""
    assert list_classes_from_module(convnet_module) == [ConvNet]


def test_training_learns_and_repeats_itself(contract):
    """Two trainings from one seed give the same weights, and a lower loss at the end."""
    images, labels = (part[:1000] for part in load_test())
    ink = torch.from_numpy(images[:, None] / np.float32(255))
    digits = Labelled(ink, torch.tensor(labels, dtype=torch.long))
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        runs.append(fit(digits, digits, [digits, digits], contract, STAGES))
    (first, course), (second, _) = runs
    assert course.loss[-1] < course.loss[0]
    assert course.plain[-1] > course.plain[0]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_distortion_keeps_the_digit_in_the_picture():
    """A turned, sheared, scaled and moved picture keeps its shape, its range and most of its ink."""
    images = torch.from_numpy(load_test()[0][:200, None] / np.float32(255))
    torch.manual_seed(0)
    distorted = distort(images)
    assert distorted.shape == images.shape
    assert 0 <= distorted.min() <= distorted.max() <= 1 + 1e-6
    assert 0.7 < (distorted.sum() / images.sum()) < 1.3
    assert not torch.equal(distorted, images)


def test_accuracy_counts_right_answers(contract):
    """A model that always says 7 is right where a 7 is written, and nowhere else."""
    always_7 = ConvNet()
    always_7.forward = lambda x: F.one_hot(torch.full((len(x),), 7), 10).float()
    assert on_test_set(always_7, contract)[0] == np.mean(load_test()[1] == 7)
