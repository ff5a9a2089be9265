"""What happened to one batch of requests: taken down while it is answered, counted later."""

from __future__ import annotations

from time import perf_counter

import numpy as np


class BatchRecord:
    """One batch. Times are in seconds; an index is a request's place in the batch."""

    __slots__ = ("_began", "answered", "decoding", "inference", "outputs", "probes", "refused", "seconds")

    def __init__(self) -> None:
        self._began = perf_counter()
        self.seconds = 0.0                 # from the batch's arrival in the handler to its answers
        self.answered: list[int] = []      # the index of each request whose picture was read,
        self.decoding: list[float] = []    # how long that took,
        self.outputs: np.ndarray | None = None  # and the model's outputs for it, float32 (N, labels)
        self.inference = 0.0               # what the model took for all of them
        self.probes: list[int] = []        # which rows of these were questions of health
        self.refused: list[tuple[int, int, str]] = []  # index, status, and the reason where there is one

    @property
    def size(self) -> int:
        """The number of requests, questions of health not counted."""
        return len(self.answered) + len(self.refused)

    def read(self, index: int, seconds: float, *, is_probe: bool) -> None:
        """Take down that a request's picture was read."""
        if is_probe:
            self.probes.append(len(self.answered))
        self.answered.append(index)
        self.decoding.append(seconds)

    def fail(self, count: int, status: int) -> None:
        """Take down that all requests, so many, get one status: TorchServe answers for us."""
        self.answered, self.decoding, self.probes, self.outputs = [], [], [], None
        self.refused = [(index, status, "") for index in range(count)]

    def end(self) -> None:
        """Take down that the answers are there."""
        self.seconds = perf_counter() - self._began
        if self.probes and self.outputs is not None:
            kept = [row for row in range(len(self.answered)) if row not in self.probes]
            self.answered = [self.answered[row] for row in kept]
            self.decoding = [self.decoding[row] for row in kept]
            self.outputs = self.outputs[kept]
