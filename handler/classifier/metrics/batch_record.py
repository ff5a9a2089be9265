"""A record of one batch of requests: written while the batch is answered, counted later."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import numpy as np


class BatchRecord:
    """One batch. Times are in seconds; an index is a request's place in the batch."""

    __slots__ = ("_began", "_late", "answered", "decoding", "inference", "outputs", "probes", "refused",
                 "seconds", "several")  # fmt: skip

    def __init__(self) -> None:
        self._began = perf_counter()
        self.seconds = 0.0  # from the batch's arrival in the handler to its answers
        self.answered: list[int] = []  # the index of each request whose images were read
        self.several: dict[int, int] = {}  # how many images it has if not one, by its place there
        self.decoding: list[float] = []  # how long each image took to read
        self.outputs: np.ndarray | None = None  # the model's output for each image, float32 (N, labels)
        self.inference = 0.0  # how long the model took for all images
        self.probes: list[int] = []  # places in `answered` that are health checks
        self._late: list[int] = []  # places in `answered` that got an error after all
        self.refused: list[tuple[int, int, str]] = []  # index, status, and the reason if there is one

    @property
    def size(self) -> int:
        """The number of requests, without health checks."""
        return len(self.answered) + len(self.refused)

    def read(self, index: int, seconds: float, *, is_probe: bool) -> None:
        """Record that a request's image was read."""
        if is_probe:
            self.probes.append(len(self.answered))
        self.answered.append(index)
        self.decoding.append(seconds)

    def read_several(self, index: int, seconds: float, count: int) -> None:
        """Record that `count` images of one request were read, each in an equal part of the time."""
        each = [seconds / count] * count
        if count != 1:
            self.several[len(self.answered)] = count
        self.answered.append(index)
        self.decoding += each

    def refuse(self, index: int, status: int, reason: str) -> None:
        """Record that a request got an error, whether or not its images were read before."""
        if index in self.answered:
            self._late.append(self.answered.index(index))
        self.refused.append((index, status, reason))

    def images(self) -> Iterator[tuple[int, slice]]:
        """Yield each answered request's index, and where its images are in `decoding` and `outputs`."""
        start = 0
        for place, index in enumerate(self.answered):
            end = start + self.several.get(place, 1)
            yield index, slice(start, end)
            start = end

    def fail(self, count: int, status: int) -> None:
        """Record that all `count` requests got the same status, from TorchServe."""
        self.answered, self.decoding, self.probes, self._late, self.outputs = [], [], [], [], None
        self.several = {}
        self.refused = [(index, status, "") for index in range(count)]

    def end(self) -> None:
        """Record that the batch is answered."""
        self.seconds = perf_counter() - self._began
        if (self.probes or self._late) and self.outputs is not None:
            self._leave_out({*self.probes, *self._late}, self.outputs)

    def _leave_out(self, places: set[int], outputs: np.ndarray) -> None:
        """Remove the requests at these places."""
        each = list(self.images())
        kept = [place for place in range(len(each)) if place not in places]
        rows = [row for place in kept for row in range(len(self.decoding))[each[place][1]]]
        self.answered = [self.answered[place] for place in kept]
        self.several = {new: self.several[old] for new, old in enumerate(kept) if old in self.several}
        self.decoding = [self.decoding[row] for row in rows]
        self.outputs = outputs[rows]
