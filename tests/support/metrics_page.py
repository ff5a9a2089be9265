"""TorchServe's metrics, read as Prometheus reads them."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable

import requests

from tests.conftest import Served
from tests.support.waiting import PATIENCE

SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
POLL = 0.1
HISTOGRAMS = {
    f"classifier_{name}"
    for name in (
        "request_duration_seconds", "decode_duration_seconds", "inference_duration_seconds", "batch_size",
        "confidence",
    )
}  # fmt: skip


class Page:
    """One response from /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            (found["name"], dict(LABEL.findall(found["labels"] or "")), float(found["value"]))
            for found in SAMPLE.finditer(text)
        ]

    def by(self, label: str, name: str) -> Counter:
        """Return a metric family's values by one of its labels, without zeros."""
        values: Counter = Counter()
        for sample, labels, value in self.samples:
            if sample == name and value:
                values[labels[label]] += value
        return values

    def total(self, name: str) -> float:
        """Return the sum of a metric family's values."""
        return sum(value for sample, _, value in self.samples if sample == name)

    @property
    def requests(self) -> float:
        """The number of requests that the workers have reported."""
        return self.total("classifier_requests_total")

    @property
    def is_whole(self) -> bool:
        """Whether the page has no half-finished report: a worker's lines arrive one by one."""
        whole = all(
            self.by("le", f"{name}_bucket")["+Inf"] == self.total(f"{name}_count") for name in HISTOGRAMS
        )
        latencies = self.total("classifier_request_duration_seconds_count")
        answers = self.total("classifier_predictions_total")  # a request with two images has two
        return (
            whole
            and latencies == self.total("classifier_batch_size_sum") == self.requests
            and self.total("classifier_confidence_count") == answers
        )


def page_of(server: Served) -> Page:
    """Fetch a server's metrics."""
    reply = requests.get(f"http://127.0.0.1:{server.port + 2}/metrics", timeout=PATIENCE)
    assert reply.status_code == 200
    return Page(reply.text)


def page_when(server: Served, condition: Callable[[Page], bool]) -> Page:
    """Return the first page for which the condition holds, or the last one after PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not condition(page := page_of(server)) and time.monotonic() < end:
        time.sleep(POLL)
    return page
