"""Batches are counted correctly, whatever the model answers and whatever fails."""

import threading

import numpy as np
import pytest

from classifier import outputs as confidence
from classifier.metrics.batch_record import BatchRecord
from classifier.metrics.histogram import INFINITE, Histogram
from classifier.metrics.tally import (
    BATCH_SIZE,
    BUCKET,
    CONFIDENCE,
    COUNT,
    LATENCY,
    PREDICTIONS,
    REQUESTS,
    SUM,
    Tally,
)
from classifier.torchserve.reporter import quoted

LABELS = ("cat", "dog", "cat")
LOGITS = np.array([[2.0, 1.0, -3.0], [0.0, 0.0, 0.0], [-1e4, 5.0, 1e4]], np.float32)
PROBABILITIES = np.exp(LOGITS - LOGITS.max(axis=1, keepdims=True))
PROBABILITIES /= PROBABILITIES.sum(axis=1, keepdims=True)


def answered(outputs: np.ndarray, *, probes: tuple[int, ...] = ()) -> BatchRecord:
    """Return the record of a batch in which every image was read."""
    batch = BatchRecord()
    for index in range(len(outputs)):
        batch.read(index, 0.001, is_probe=index in probes)
    batch.outputs = outputs
    batch.end()
    return batch


def numbers(tally: Tally, **options) -> dict[tuple[str, str | None], float]:
    return {(name, label): value for name, label, value in tally.take(**options)}


def test_histogram_counts_as_prometheus_does():
    """A value counts in its own bucket and all above; the last bucket counts all values."""
    histogram = Histogram((0.1, 1, 10))
    histogram.add(np.array([0.1, 0.10001, 1.0, 99.0]), np.array([1, 2, 1, 1]))
    histogram.add(np.array([5.0]))
    assert list(histogram.up_to()) == [("0.1", 1), ("1.0", 4), ("10.0", 5), (INFINITE, 6)]
    assert histogram.total == pytest.approx(0.1 + 2 * 0.10001 + 1 + 99 + 5)
    histogram.empty()
    assert [count for _, count in histogram.up_to()] == [0, 0, 0, 0]


def test_what_is_taken_is_not_told_again():
    """Values are increments: without a new request there are none, or zeros if they are requested."""
    tally = Tally(LABELS, confidence.LOGITS)
    tally.add(answered(LOGITS))
    first = numbers(tally)
    assert first[REQUESTS, "200"] == first[CONFIDENCE + COUNT, None] == first[LATENCY + BUCKET, INFINITE] == 3
    # Two of its labels have the same name and are counted as one.
    assert first[PREDICTIONS, "cat"] == 3
    assert (PREDICTIONS, "dog") not in first
    assert numbers(tally) == {}
    zeros = numbers(tally, zeros=True)
    assert set(zeros.values()) == {0}
    assert set(first) < set(zeros)


def test_questions_of_health_are_left_out():
    """In a batch of only health checks nothing else is counted; in others they change no label or size."""
    tally = Tally(LABELS, confidence.LOGITS)
    tally.add(answered(LOGITS, probes=(0, 1, 2)))
    assert [value for _, _, value in tally.take()] == [3]
    tally.add(answered(LOGITS[[0, 1, 2]], probes=(2,)))
    counted = numbers(tally)
    assert counted[BATCH_SIZE + SUM, None] == counted[PREDICTIONS, "cat"] == 2
    assert counted[CONFIDENCE + SUM, None] == pytest.approx(PROBABILITIES[:2].max(axis=1).sum())


def test_nothing_is_lost_between_two_threads():
    """One thread takes while another adds: every batch is counted once."""
    tally = Tally(LABELS, confidence.LOGITS)
    batches = 20_000

    def add() -> None:
        for _ in range(batches):
            tally.add(answered(LOGITS[:1]))

    adding = threading.Thread(target=add)
    adding.start()
    count = 0.0
    while adding.is_alive():
        count += numbers(tally).get((REQUESTS, "200"), 0)
    adding.join()
    assert count + numbers(tally).get((REQUESTS, "200"), 0) == batches


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("cat", "cat"),
        ("a, b: c|d", "a%2C b%3A c%7Cd"),
        ("50%", "50%25"),
        ("Äpfel\u2028", "%C3%84pfel%E2%80%A8"),
        ("", "%00"),
        ('"\\', '"\\'),
        ("\ud800", "%3F"),
    ],
    ids=["plain", "separators", "percent", "not-ascii", "nothing", "quotes", "surrogate"],
)
def test_label_is_written_as_torchserve_reads_it(text, written):
    """Characters that would split a line or get lost are percent-encoded."""
    assert quoted(text) == written
