"""What happened to one batch of requests: taken down while it is answered, counted later."""

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
        self.answered: list[int] = []  # the index of each request whose images were read,
        self.several: dict[int, int] = {}  # how many they are, by its place there, where they are not one,
        self.decoding: list[float] = []  # how long each image took,
        self.outputs: np.ndarray | None = None  # and the model's outputs for it, float32 (N, labels)
        self.inference = 0.0  # what the model took for all of them
        self.probes: list[int] = []  # which places in `answered` are questions of health,
        self._late: list[int] = []  # and which are answered by an error all the same
        self.refused: list[tuple[int, int, str]] = []  # index, status, and the reason where there is one

    @property
    def size(self) -> int:
        """The number of requests, questions of health not counted."""
        return len(self.answered) + len(self.refused)

    def read(self, index: int, seconds: float, *, is_probe: bool) -> None:
        """Take down that a request's image was read."""
        if is_probe:
            self.probes.append(len(self.answered))
        self.answered.append(index)
        self.decoding.append(seconds)

    def read_several(self, index: int, seconds: float, count: int) -> None:
        """Take down that so many images of one request were read, each in its part of the time."""
        each = [seconds / count] * count
        if count != 1:
            self.several[len(self.answered)] = count
        self.answered.append(index)
        self.decoding += each

    def refuse(self, index: int, status: int, reason: str) -> None:
        """Take down that a request got an error, whether or not its images were read before."""
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
        """Take down that all requests, so many, get one status: TorchServe answers for us."""
        self.answered, self.decoding, self.probes, self._late, self.outputs = [], [], [], [], None
        self.several = {}
        self.refused = [(index, status, "") for index in range(count)]

    def end(self) -> None:
        """Take down that the answers are there."""
        self.seconds = perf_counter() - self._began
        if (self.probes or self._late) and self.outputs is not None:
            self._leave_out({*self.probes, *self._late}, self.outputs)

    def _leave_out(self, places: set[int], outputs: np.ndarray) -> None:
        """Forget what was answered at these places."""
        each = list(self.images())
        kept = [place for place in range(len(each)) if place not in places]
        rows = [row for place in kept for row in range(len(self.decoding))[each[place][1]]]
        self.answered = [self.answered[place] for place in kept]
        self.several = {new: self.several[old] for new, old in enumerate(kept) if old in self.several}
        self.decoding = [self.decoding[row] for row in rows]
        self.outputs = outputs[rows]
