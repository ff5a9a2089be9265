"""Integrated gradients of models whose answer is known."""

import numpy as np
import pytest
import torch

from classifier.explain import explain


def test_shares_of_a_linear_model_are_known():
    """Each share is weight times value, in each channel of each pixel, so the result is known."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    scaled, black = np.ones((3, 2, 2), np.float32), np.zeros((3, 2, 2), np.float32)
    found = explain(model, torch.device("cpu"), scaled, black, 1)
    expected = model[1].weight[1].detach().numpy().reshape(3, 2, 2)
    np.testing.assert_allclose(found.shares, expected, rtol=0, atol=1e-5)
    assert found.output - found.baseline_output == pytest.approx(found.shares.sum(), abs=1e-5)
