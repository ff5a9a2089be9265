"""How confident a model is, and how often it is right."""

import numpy as np
import pytest
import torch
from torch import nn

from training.calibration import best_temperature, expected_calibration_error, fold


def test_calibration_error_is_the_distance_of_probability_and_truth():
    """0 if 80 of 100 answers at 80 % are right, 0.3 if 50 are; groups are weighted by size."""
    probability = np.full(100, 0.8)
    assert expected_calibration_error(probability, np.arange(100) < 80) == pytest.approx(0)
    assert expected_calibration_error(probability, np.arange(100) < 50) == pytest.approx(0.3)
    both = np.concatenate([probability, np.full(300, 1.0)])
    right = np.concatenate([np.arange(100) < 50, np.ones(300, dtype=bool)])
    assert expected_calibration_error(both, right) == pytest.approx(0.3 / 4)


def test_temperature_is_found_and_folded_in():
    """Logits three times too large give a temperature of 3; fold() divides the last layer's outputs."""
    torch.manual_seed(0)
    last = nn.Linear(8, 10)
    features = torch.randn(5_000, 8)
    true_logits = last(features).detach()
    labels = torch.distributions.Categorical(logits=true_logits).sample()
    temperature = best_temperature(torch.log_softmax(3 * true_logits, dim=1), labels)
    assert temperature == pytest.approx(3, rel=0.1)
    fold(2.0, last)
    torch.testing.assert_close(last(features), true_logits / 2)
