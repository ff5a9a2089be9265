"""How sure the model is of its answers."""

from __future__ import annotations

import numpy as np

# Float32 probabilities of a thousand labels add up to 1 within this.
ROUNDING = 1e-3


def confidences(outputs: np.ndarray) -> np.ndarray:
    """Return the probability of the largest in each row of outputs (N, labels), float64 (N,).

    The outputs may be probabilities, their logarithms or the values before a softmax. What is no number
    gets 0: nobody is sure of it.
    """
    rows = outputs.astype(np.float64)
    if len(rows) and rows.min() >= 0 and bool((abs(rows.sum(axis=1) - 1) < ROUNDING).all()):
        largest: np.ndarray = rows.max(axis=1)
        return largest
    with np.errstate(invalid="ignore"):
        odds = np.exp(rows - rows.max(axis=1, keepdims=True))
    sure: np.ndarray = np.nan_to_num(1 / odds.sum(axis=1))
    return sure
