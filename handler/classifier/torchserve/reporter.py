"""Report a worker's metrics to TorchServe once a second, for /metrics on its port 8082.

A metric reaches TorchServe 0.12.0's front end as a line on the worker's stdout, which it parses with a
regular expression. Its histograms take one value per line and have one set of bounds, none of them below 5
ms. So this module reports increments of counters, also for each bound of a histogram: histogram_quantile()
and rate() need nothing else, the workers' increments add up, and a worker that dies takes nothing back. Only
the TYPE lines call these families counters.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from ts.metrics.metric_cache_errors import MetricsCacheKeyError
from ts.metrics.metric_type_enum import MetricTypes

from ..contract import Contract
from ..metrics.tally import BOUNDS, COUNTERS, PARTS, Sample, Tally

logger = logging.getLogger(__name__)

INFO = "classifier_archive_info"
STARTS = "classifier_worker_starts_total"
FAMILIES = (*COUNTERS, STARTS, *(name + part for name in BOUNDS for part in PARTS))
EVERY = 1.0  # seconds
# Characters at which TorchServe's front end splits a line, and the replacement for an empty text.
SEPARATORS = ",:|%"
NO_TEXT = "%00"


def start_reporting(
    metrics: Any, contract: Contract, model: str, version: str, digest: str | None
) -> Tally | None:
    """Return a tally that is reported to TorchServe from now on; None if there is no one to report to.

    `metrics` is the worker's, None outside one. TorchServe may also be configured without our families.
    """
    if metrics is None:
        return None
    try:
        families = {name: metrics.get_metric(name, MetricTypes.COUNTER) for name in FAMILIES}
        info = metrics.get_metric(INFO, MetricTypes.GAUGE)
    except MetricsCacheKeyError as missing:
        logger.info("the archive's own metrics are not reported: %s", missing)
        return None
    of = (quoted(model), quoted(version))
    info.add_or_update(1, [*of, quoted(digest or "")])
    tally = Tally(contract.labels, contract.outputs)
    reporter = Reporter(tally, families, of)
    # Zeros as well: Prometheus sees a counter's first increase only if it knew the counter before.
    reporter.tell([Sample(STARTS, None, 1), *tally.take(zeros=True)])
    reporter.start()
    # Python does not exit cleanly while a thread like this one is writing a line.
    atexit.register(reporter.stop)
    return tally


class Reporter(threading.Thread):
    """Reports a tally's increments once a second."""

    def __init__(self, tally: Tally, families: Mapping[str, Any], of: tuple[str, str]) -> None:
        super().__init__(name="metrics", daemon=True)
        self._tally = tally
        self._families = families
        self._of = of  # model and version, the first labels of each family
        self._ended = threading.Event()

    def run(self) -> None:
        """Report until stopped; after a quiet second there is nothing to report."""
        while not self._ended.wait(EVERY):
            try:
                self.tell(self._tally.take())
            except Exception:  # answering matters more than counting
                logger.exception("the metrics of one second are lost")

    def tell(self, samples: Iterable[Sample]) -> None:
        """Report increments, which TorchServe adds to its counters."""
        for name, label, value in samples:
            own = () if label is None else (quoted(label),)
            self._families[name].add_or_update(value, [*self._of, *own])

    def stop(self) -> None:
        """Stop, once the report in progress is written."""
        self._ended.set()
        self.join(EVERY)


def quoted(text: str) -> str:
    """Return a label's value in the form that TorchServe's front end reads.

    It is percent-encoded as in a URL, with %2C for a comma: the characters at which a line is split, those
    that do not print, and all but ASCII, which Java writes as question marks in some locales.
    """
    encoded = (one if _is_plain(one) else quote(one, safe="", errors="replace") for one in text)
    return "".join(encoded) or NO_TEXT


def _is_plain(character: str) -> bool:
    return character.isascii() and character.isprintable() and character not in SEPARATORS
