"""Run a model with a fixed batch size on batches of any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class FixedBatch:
    """Splits a batch into parts of the model's size, and pads the last one."""

    def __init__(self, model: Callable[[np.ndarray], np.ndarray], size: int) -> None:
        self.model = model
        self.size = size

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the outputs (N, labels) for a float32 batch (N, C, H, W)."""
        parts = [batch[first : first + self.size] for first in range(0, len(batch), self.size)]
        return np.concatenate([self.model(self._filled(part)) for part in parts])[: len(batch)]

    def _filled(self, part: np.ndarray) -> np.ndarray:
        # Pad with a real image: from zeros some models produce NaN, which is slow on some processors.
        return np.concatenate([part, np.repeat(part[-1:], self.size - len(part), axis=0)])
