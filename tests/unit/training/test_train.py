"""The network, its weights, its accuracy and the batches that it learns from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from ts.utils.util import list_classes_from_module

from model import convnet as convnet_module
from model.convnet import ConvNet
from tests.conftest import ROOT
from training.mnist import load_test
from training.train import BATCH, STAGES, Batches, Labelled, on_test_set

WEIGHTS = ROOT / "model" / "convnet.pth"


@pytest.fixture(scope="module")
def model():
    loaded = ConvNet()
    loaded.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return loaded.eval()


def test_outputs_are_log_probabilities(model):
    """The probabilities of each row sum to one."""
    outputs = model(torch.rand(3, 1, 28, 28))
    assert outputs.shape == (3, 10)
    torch.testing.assert_close(outputs.exp().sum(dim=1), torch.ones(3))


def test_older_weights_load():
    """A state_dict with the parameters cn1, cn2, fc1 and fc2 loads without changes."""
    shapes = {
        "cn1.weight": (16, 1, 3, 3), "cn1.bias": (16,), "cn2.weight": (32, 16, 3, 3), "cn2.bias": (32,),
        "fc1.weight": (64, 4608), "fc1.bias": (64,), "fc2.weight": (10, 64), "fc2.bias": (10,),
    }  # fmt: skip
    ConvNet().load_state_dict({name: torch.zeros(shape) for name, shape in shapes.items()}, strict=True)


def test_file_holds_one_class():
    """TorchServe refuses a model file with more than one class."""
    assert list_classes_from_module(convnet_module) == [ConvNet]


def test_accuracy_counts_right_answers(contract):
    """A model that always answers 7 is right for the sevens, and only for them."""
    always_7 = ConvNet()
    always_7.forward = lambda x: F.one_hot(torch.full((len(x),), 7), 10).float()
    assert on_test_set(always_7, contract)[0] == np.mean(load_test()[1] == 7)


@pytest.mark.parametrize("makers", [1, 2])
def test_makers_share_the_batches(contract, makers):
    """However many processes make them, each digit is learned once an epoch, in the same order."""
    images, labels = (part[: 5 * BATCH + 7] for part in load_test())
    digits = Labelled(
        torch.from_numpy(images[:, None] / np.float32(255)), torch.tensor(labels, dtype=torch.long)
    )
    stage = replace(STAGES[0], epochs=2)

    def told(processes):
        torch.manual_seed(0)
        loader = DataLoader(Batches(digits, contract, stage), batch_size=None, num_workers=processes)
        return [truth.argmax(dim=1)[:BATCH].tolist() for _, truth in loader]

    alone = told(0)
    assert len(alone) == 2 * 5
    assert alone[:5] != alone[5:]
    assert told(makers) == alone
