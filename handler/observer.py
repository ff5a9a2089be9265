"""Watches a handler answer: a record of each batch, for the metrics and the log of those who want them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from batch_record import BatchRecord
from reporter import start_reporting
from request_log import RequestLog, asked_for

# What TorchServe answers a whole batch by where the handler raises.
UNAVAILABLE, OUT_OF_MEMORY = 503, 507


class Observer:
    """Hands on what happened to each batch of one model; outside of TorchServe's workers to nobody."""

    def __init__(self, context: Any, labels: tuple[str, ...], digest: str | None) -> None:
        of = context.model_name, context.manifest["model"]["modelVersion"]
        self.tally = start_reporting(context.metrics, labels, *of, digest)
        in_a_worker = context.metrics is not None
        self._log = RequestLog(*of) if in_a_worker and asked_for() else None

    @contextlib.contextmanager
    def watch(self, count: int, context: Any) -> Iterator[BatchRecord]:
        """Give a record of a batch of so many requests, to be filled in while they are answered."""
        batch = BatchRecord()
        try:
            yield batch
        except Exception as error:
            batch.fail(count, OUT_OF_MEMORY if isinstance(error, MemoryError) else UNAVAILABLE)
            raise
        finally:
            batch.end()
            if self.tally is not None:
                self.tally.add(batch)
            if self._log is not None:
                self._log.write(batch, context)
