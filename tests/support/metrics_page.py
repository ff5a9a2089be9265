"""What TorchServe tells on its metrics port, read as Prometheus reads it."""

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
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            (found["name"], dict(LABEL.findall(found["labels"] or "")), float(found["value"]))
            for found in SAMPLE.finditer(text)
        ]

    def by(self, label: str, name: str) -> Counter:
        """Return a family's values by one of its labels, those of 0 left out."""
        values: Counter = Counter()
        for sample, labels, value in self.samples:
            if sample == name and value:
                values[labels[label]] += value
        return values

    def total(self, name: str) -> float:
        """Return the sum of a family's values."""
        return sum(value for sample, _, value in self.samples if sample == name)

    @property
    def requests(self) -> float:
        """The number of requests that the workers told of."""
        return self.total("classifier_requests_total")

    @property
    def is_whole(self) -> bool:
        """Whether the page was asked for between two tellings: a worker's lines come one after the other."""
        whole = all(
            self.by("le", f"{name}_bucket")["+Inf"] == self.total(f"{name}_count") for name in HISTOGRAMS
        )
        latencies = self.total("classifier_request_duration_seconds_count")
        answers = self.total("classifier_predictions_total")  # of a request of two images there are two
        return (
            whole
            and latencies == self.total("classifier_batch_size_sum") == self.requests
            and self.total("classifier_confidence_count") == answers
        )


def page_of(server: Served) -> Page:
    """Ask a server for its metrics."""
    reply = requests.get(f"http://127.0.0.1:{server.port + 2}/metrics", timeout=PATIENCE)
    assert reply.status_code == 200
    return Page(reply.text)


def page_when(server: Served, told: Callable[[Page], bool]) -> Page:
    """Return the first page of which something holds; after a minute the last one, whatever it says."""
    end = time.monotonic() + PATIENCE
    while not told(page := page_of(server)) and time.monotonic() < end:
        time.sleep(POLL)
    return page
