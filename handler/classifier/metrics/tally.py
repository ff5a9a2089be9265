"""Count what a worker did from the records of its batches, and return it as increments.

The request path only puts a batch's record on a list. The thread that reports does the rest, for all batches
of a second at once. So an image costs a worker well below a microsecond.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..errors import Reason
from ..outputs import confidences
from .batch_record import BatchRecord
from .histogram import Histogram

REQUESTS = "classifier_requests_total"
PROBES = "classifier_health_checks_total"
REJECTED = "classifier_rejected_total"
PREDICTIONS = "classifier_predictions_total"
LABEL_CONFIDENCE = "classifier_label_confidence_total"
COUNTERS = (REQUESTS, PROBES, REJECTED, PREDICTIONS, LABEL_CONFIDENCE)

LATENCY = "classifier_request_duration_seconds"
DECODING = "classifier_decode_duration_seconds"
INFERENCE = "classifier_inference_duration_seconds"
BATCH_SIZE = "classifier_batch_size"
CONFIDENCE = "classifier_confidence"
PARTS = BUCKET, SUM, COUNT = "_bucket", "_sum", "_count"

OK = 200
# The handler's statuses, and TorchServe's if the handler fails: reported from the start, as zeros.
STATUSES = (OK, 400, 500, 501, 503, 507)
# How many batches may wait to be counted; there are a few thousand per second at most.
MOST = 2**17


def _steps(first: int, last: int) -> tuple[float, ...]:
    """Return 1, 2 and 5 of each power of ten from `first` to `last`."""
    return tuple(float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 2, 5))


BOUNDS = {
    LATENCY: _steps(-4, 0),
    DECODING: _steps(-6, 0),
    INFERENCE: _steps(-5, 0),
    BATCH_SIZE: tuple(2.0**power for power in range(8)),
    CONFIDENCE: (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
}


class Sample(NamedTuple):
    """An increment of one counter: its name, its label's value if it has one, and the increase."""

    name: str
    label: str | None
    value: float


class Tally:
    """The numbers since they were last taken. One thread adds batches, another takes the numbers."""

    def __init__(self, labels: tuple[str, ...], kind: str | None) -> None:
        self._labels = labels
        self._kind = kind  # of the outputs
        self._waiting: deque[BatchRecord] = deque(maxlen=MOST)
        # Used by two threads: a deque's append and popleft need no lock.
        self.add = self._waiting.append
        self._histograms = {name: Histogram(bounds) for name, bounds in BOUNDS.items()}
        self._counts: dict[tuple[str, str | None], float] = {
            (PROBES, None): 0,
            **{(REQUESTS, str(status)): 0 for status in STATUSES},
            **{(REJECTED, str(reason)): 0 for reason in Reason},
            **{(name, label): 0 for name in (PREDICTIONS, LABEL_CONFIDENCE) for label in labels},
        }

    def take(self, *, zeros: bool = False) -> list[Sample]:
        """Return the increments since the last call; with `zeros`, also those that are zero."""
        self._count([self._waiting.popleft() for _ in range(len(self._waiting))])
        samples = [sample for sample in self._samples() if sample.value or zeros]
        self._counts = dict.fromkeys(self._counts, 0)
        for histogram in self._histograms.values():
            histogram.empty()
        return samples

    def _samples(self) -> Iterator[Sample]:
        for (name, label), value in self._counts.items():
            yield Sample(name, label, value)
        for name, histogram in self._histograms.items():
            count = 0
            for bound, count in histogram.up_to():
                yield Sample(name + BUCKET, bound, count)
            yield Sample(name + SUM, None, histogram.total)
            yield Sample(name + COUNT, None, count)

    def _count(self, batches: list[BatchRecord]) -> None:
        self._rise(PROBES, None, sum(len(batch.probes) for batch in batches))
        batches = [batch for batch in batches if batch.size]
        if not batches:
            return
        sizes = np.array([batch.size for batch in batches])
        self._histograms[BATCH_SIZE].add(sizes)
        # Each request waits for its whole batch.
        self._histograms[LATENCY].add(np.array([batch.seconds for batch in batches]), sizes)
        for batch in batches:
            for _, status, reason in batch.refused:
                self._rise(REQUESTS, str(status), 1)
                if reason:
                    self._rise(REJECTED, reason, 1)
        self._count_answered([batch for batch in batches if batch.answered])

    def _count_answered(self, batches: list[BatchRecord]) -> None:
        outputs = [batch.outputs for batch in batches if batch.outputs is not None]
        if not outputs:
            return
        # A request may have several images, each with its own time and label.
        decoding = [seconds for batch in batches for seconds in batch.decoding]
        self._rise(REQUESTS, str(OK), sum(len(batch.answered) for batch in batches))
        self._histograms[DECODING].add(np.array(decoding))
        self._histograms[INFERENCE].add(np.array([batch.inference for batch in batches]))
        self._count_labels(np.concatenate(outputs))

    def _count_labels(self, outputs: np.ndarray) -> None:
        sure = confidences(outputs, self._kind)
        self._histograms[CONFIDENCE].add(sure)
        columns = outputs.argmax(axis=1)
        counts = np.bincount(columns, minlength=len(self._labels)).tolist()
        sums = np.bincount(columns, sure, minlength=len(self._labels)).tolist()
        for label, count, total in zip(self._labels, counts, sums, strict=True):
            if count:
                self._rise(PREDICTIONS, label, count)
                self._rise(LABEL_CONFIDENCE, label, total)

    def _rise(self, name: str, label: str | None, by: float) -> None:
        self._counts[name, label] = self._counts.get((name, label), 0) + by
