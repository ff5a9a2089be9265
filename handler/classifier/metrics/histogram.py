"""A Prometheus histogram that counts many values at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

INFINITE = "+Inf"


class Histogram:
    """How many values came up to each bound, and their sum, since it was last emptied."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds, dtype=np.float64)
        # Prometheus compares these as text, so they are written as its Python and Java clients write them.
        self.names = [*(repr(float(bound)) for bound in bounds), INFINITE]
        self.empty()

    def empty(self) -> None:
        """Forget all values."""
        self._counts = np.zeros(len(self.names), np.int64)
        self._sum = 0.0

    def add(self, values: np.ndarray, times: np.ndarray | None = None) -> None:
        """Count each of the values (N,) once, or `times` (N,) times."""
        times = np.ones(len(values), np.int64) if times is None else times
        # From the left: a value that equals a bound is within it.
        np.add.at(self._counts, np.searchsorted(self._bounds, values), times)
        self._sum += float(values.astype(np.float64) @ times)

    @property
    def total(self) -> float:
        """The sum of all values."""
        return self._sum

    def up_to(self) -> Iterator[tuple[str, int]]:
        """Return each bound's name with the number of values up to it; the last has the number of all."""
        return zip(self.names, self._counts.cumsum().tolist(), strict=True)
