"""Outputs of models as they are rounded, and the beginning of a refusal."""

import numpy as np


def softmax(values):
    odds = np.exp(np.array(values) - np.max(values))
    return odds / odds.sum()


def eight_bits(values):
    """What a quantised softmax makes of probabilities: multiples of 1/256, at most 255 of them."""
    return np.minimum(np.round(np.array(values) * 256), 255) / 256


TOLD = "model-config.yaml says outputs: "
