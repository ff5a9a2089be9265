"""A model that takes batches of one size alone, for callers with batches of any."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class FixedBatch:
    """Cuts a batch into parts of the model's size, and fills the last one up."""

    def __init__(self, model: Callable[[np.ndarray], np.ndarray], size: int) -> None:
        self.model = model
        self.size = size

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the outputs (N, labels) for a float32 batch (N, C, H, W)."""
        parts = [batch[first : first + self.size] for first in range(0, len(batch), self.size)]
        return np.concatenate([self.model(self._filled(part)) for part in parts])[: len(batch)]

    def _filled(self, part: np.ndarray) -> np.ndarray:
        # By an image that is there: of zeros some models make NaN, and some processors are slow with that.
        return np.concatenate([part, np.repeat(part[-1:], self.size - len(part), axis=0)])
