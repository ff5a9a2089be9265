"""How sure the model is of its answers."""

from __future__ import annotations

import numpy as np

# Float32 probabilities of a thousand labels add up to 1 within this.
ROUNDING = 1e-3


def confidences(outputs: np.ndarray) -> np.ndarray:
    """Return the probability of the largest in each row of outputs (N, labels), float32 (N,).

    The outputs may be probabilities, their logarithms or the values before a softmax. What is no number
    gets 0: nobody is sure of it.
    """
    # (labels, N): NumPy goes through whole rows several times as fast as through many short ones.
    columns = np.ascontiguousarray(outputs.T, dtype=np.float32)
    largest: np.ndarray = columns.max(axis=0)
    if _are_probabilities(columns):
        return largest
    with np.errstate(invalid="ignore"):
        odds = np.exp(columns - largest)
    sure: np.ndarray = np.nan_to_num(1 / odds.sum(axis=0))
    return sure


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return the probability of each label for outputs (N, labels) of any such kind, float32 (N, labels)."""
    rows = np.asarray(outputs, dtype=np.float32)
    if _are_probabilities(rows.T):
        return rows
    with np.errstate(invalid="ignore"):
        odds = np.exp(rows - rows.max(axis=1, keepdims=True))
        chances: np.ndarray = np.nan_to_num(odds / odds.sum(axis=1, keepdims=True))
    return chances


def _are_probabilities(columns: np.ndarray) -> bool:
    return bool(columns.min(initial=0) >= 0 and (abs(columns.sum(axis=0) - 1) < ROUNDING).all())
