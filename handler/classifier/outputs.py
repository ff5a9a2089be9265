"""How sure the model is of its answers, from outputs of the kind that its contract names."""

from __future__ import annotations

import numpy as np

# What a model's outputs may be: `outputs` in model-config.yaml. An archive always names one of them: where
# the file that it was built from did not, the build decided it from the golden outputs.
LOGITS, LOG_PROBABILITIES, PROBABILITIES = "logits", "log-probabilities", "probabilities"
KINDS = (LOGITS, LOG_PROBABILITIES, PROBABILITIES)


def confidences(outputs: np.ndarray, kind: str | None) -> np.ndarray:
    """Return the probability of the largest in each row of outputs (N, labels), float32 (N,).

    The kind is None in an archive that was not sealed: such outputs go through a softmax, as logits do.
    What is no number gets 0: nobody is sure of it.
    """
    # (labels, N): NumPy goes through whole rows several times as fast as through many short ones.
    columns = np.ascontiguousarray(outputs.T, dtype=np.float32)
    largest: np.ndarray = columns.max(axis=0)
    if kind in (PROBABILITIES, LOG_PROBABILITIES):
        return _as_told(largest, kind)
    with np.errstate(invalid="ignore"):
        odds = np.exp(columns - largest)
        # In float32 a column of thousands, added up one by one, would be off in the fifth digit.
        sure: np.ndarray = np.nan_to_num(1 / odds.sum(axis=0, dtype=np.float64))
    return sure.astype(np.float32)


def probabilities(outputs: np.ndarray, kind: str | None) -> np.ndarray:
    """Return the probability of each label for outputs (N, labels), float32 (N, labels).

    Probabilities stay as the model gives them: those of a quantised model may add up to 0.9961, and dividing
    by that would tell 1.0 where the model says 0.9961. A row depends on no other row.
    """
    rows = np.asarray(outputs, dtype=np.float32)
    if kind in (PROBABILITIES, LOG_PROBABILITIES):
        return _as_told(rows, kind)
    with np.errstate(invalid="ignore"):
        odds = np.exp(rows - rows.max(axis=1, keepdims=True))
        chances: np.ndarray = np.nan_to_num(odds / odds.sum(axis=1, keepdims=True))
    return chances


def _as_told(values: np.ndarray, kind: str) -> np.ndarray:
    """Return probabilities, or what these are the logarithms of, within 0 and 1; 0 for what is no number."""
    if kind == LOG_PROBABILITIES:
        with np.errstate(over="ignore"):
            values = np.exp(values)
    told: np.ndarray = np.where(np.isfinite(values), values, np.float32(0)).clip(0, 1)
    return told
