"""Tells TorchServe what a worker did, once a second, so that /metrics on its port 8082 has it.

A metric reaches TorchServe 0.12.0's front end as a line on the worker's stdout, which it parses by a regular
expression. Its histograms take one value a line and know one set of bounds, none of them below 5 ms. So what
it is told here are increments of counters, also for each bound of a histogram: histogram_quantile() and
rate() ask for nothing else, the workers' increments add up, and a worker that dies takes nothing back. Only
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
# What TorchServe's front end splits a line at, and what stands for them.
SEPARATORS = ",:|%"
NO_TEXT = "%00"


def start_reporting(
    metrics: Any, contract: Contract, model: str, version: str, digest: str | None
) -> Tally | None:
    """Return a tally that TorchServe is told of from now on; None where nobody asks for it.

    `metrics` is the worker's, None outside of one. TorchServe may also be configured without our families.
    """
    if metrics is None:
        return None
    try:
        families = {name: metrics.get_metric(name, MetricTypes.COUNTER) for name in FAMILIES}
        info = metrics.get_metric(INFO, MetricTypes.GAUGE)
    except MetricsCacheKeyError as missing:
        logger.info("the archive's own metrics are not told: %s", missing)
        return None
    of = (quoted(model), quoted(version))
    info.add_or_update(1, [*of, quoted(digest or "")])
    tally = Tally(contract.labels, contract.outputs)
    reporter = Reporter(tally, families, of)
    # Zeros as well: a counter's first rise is seen only by who knew it before.
    reporter.tell([Sample(STARTS, None, 1), *tally.take(zeros=True)])
    reporter.start()
    # Python ends badly where such a thread is in the middle of a line.
    atexit.register(reporter.stop)
    return tally


class Reporter(threading.Thread):
    """Takes from a tally once a second, and tells what there is."""

    def __init__(self, tally: Tally, families: Mapping[str, Any], of: tuple[str, str]) -> None:
        super().__init__(name="metrics", daemon=True)
        self._tally = tally
        self._families = families
        self._of = of  # model and version, the first labels of each family
        self._ended = threading.Event()

    def run(self) -> None:
        """Tell until the end; in a quiet second there is nothing to tell."""
        while not self._ended.wait(EVERY):
            try:
                self.tell(self._tally.take())
            except Exception:  # to answer is more than to count
                logger.exception("what the worker did in a second is not counted")

    def tell(self, samples: Iterable[Sample]) -> None:
        """Have TorchServe add increments to its counters."""
        for name, label, value in samples:
            own = () if label is None else (quoted(label),)
            self._families[name].add_or_update(value, [*self._of, *own])

    def stop(self) -> None:
        """End, the last words said."""
        self._ended.set()
        self.join(EVERY)


def quoted(text: str) -> str:
    """Return a label's value as TorchServe's front end reads it.

    As in an address, %2C stands for a comma, and so on: for what a line is split at, for what does not
    print, and for all but ASCII, which Java writes as question marks in some locales.
    """
    told = (one if _is_plain(one) else quote(one, safe="", errors="replace") for one in text)
    return "".join(told) or NO_TEXT


def _is_plain(character: str) -> bool:
    return character.isascii() and character.isprintable() and character not in SEPARATORS
