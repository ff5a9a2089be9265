"""Calibrate the probabilities: of a hundred answers with 90 %, ninety should be correct."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

BINS = 15
# From far too sure to far too unsure, in steps of one per cent.
TEMPERATURES = np.exp(np.arange(-120, 121) * 0.01)


def expected_calibration_error(probability: np.ndarray, right: np.ndarray) -> float:
    """Return the mean distance between probability (N,) and share of correct answers, bool (N,).

    Over 15 bins of equal width, weighted by their counts (Guo et al., On Calibration of Modern Neural
    Networks, 2017). 0 is perfect.
    """
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    distance = 0.0
    for index in np.unique(bins):
        chosen = bins == index
        distance += chosen.mean() * abs(probability[chosen].mean() - right[chosen].mean())
    return float(distance)


def best_temperature(log_probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the divisor of log-probabilities (N, 10) that makes the labels (N,) most likely."""
    losses = [float(F.cross_entropy(log_probabilities / t, labels)) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def fold(temperature: float, last: nn.Linear) -> None:
    """Divide the logits by the temperature, in the last layer's weights: no answer changes."""
    with torch.no_grad():
        last.weight.div_(temperature)
        last.bias.div_(temperature)
