"""Probabilities and confidences, from outputs of the kind that the contract names."""

from __future__ import annotations

import numpy as np

# The values of `outputs` in model-config.yaml. A sealed archive always has one: if the file that it was built
# from did not, the build chose it from the golden outputs.
LOGITS, LOG_PROBABILITIES, PROBABILITIES = "logits", "log-probabilities", "probabilities"
KINDS = (LOGITS, LOG_PROBABILITIES, PROBABILITIES)


def confidences(outputs: np.ndarray, kind: str | None) -> np.ndarray:
    """Return the probability of the largest value in each row of outputs (N, labels), float32 (N,).

    The kind is None in an archive that was not sealed: such outputs go through a softmax, as logits do.
    NaN gives 0: no confidence.
    """
    # (labels, N): NumPy processes a few long rows several times as fast as many short ones.
    columns = np.ascontiguousarray(outputs.T, dtype=np.float32)
    largest: np.ndarray = columns.max(axis=0)
    if kind in (PROBABILITIES, LOG_PROBABILITIES):
        return _as_given(largest, kind)
    with np.errstate(invalid="ignore"):
        odds = np.exp(columns - largest)
        # In float32, the sum of a column of thousands would be off in the fifth digit.
        highest: np.ndarray = np.nan_to_num(1 / odds.sum(axis=0, dtype=np.float64))
    return highest.astype(np.float32)


def probabilities(outputs: np.ndarray, kind: str | None) -> np.ndarray:
    """Return the probability of each label for outputs (N, labels), float32 (N, labels).

    Probabilities stay as the model returns them: those of a quantised model may add up to 0.9961, and
    dividing by that would report 1.0 where the model returned 0.9961. Each row is independent of the others.
    """
    rows = np.asarray(outputs, dtype=np.float32)
    if kind in (PROBABILITIES, LOG_PROBABILITIES):
        return _as_given(rows, kind)
    with np.errstate(invalid="ignore"):
        odds = np.exp(rows - rows.max(axis=1, keepdims=True))
        chances: np.ndarray = np.nan_to_num(odds / odds.sum(axis=1, keepdims=True))
    return chances


def _as_given(values: np.ndarray, kind: str) -> np.ndarray:
    """Return probabilities, or the exponentials of log-probabilities, within 0 and 1; 0 if not finite."""
    if kind == LOG_PROBABILITIES:
        with np.errstate(over="ignore"):
            values = np.exp(values)
    given: np.ndarray = np.where(np.isfinite(values), values, np.float32(0)).clip(0, 1)
    return given
