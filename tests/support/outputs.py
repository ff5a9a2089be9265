"""Model outputs, rounded as models round them, and the start of an error message."""

import numpy as np


def softmax(values):
    odds = np.exp(np.array(values) - np.max(values))
    return odds / odds.sum()


def eight_bits(values):
    """Round probabilities as a quantised softmax does: to multiples of 1/256, at most 255/256."""
    return np.minimum(np.round(np.array(values) * 256), 255) / 256


TOLD = "model-config.yaml says outputs: "
