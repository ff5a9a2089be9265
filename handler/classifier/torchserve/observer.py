"""Record what happens to each batch, for the metrics and the request log."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from ..contract import Contract
from ..metrics.batch_record import BatchRecord
from ..metrics.request_log import RequestLog, asked_for
from .reporter import start_reporting

# The statuses with which TorchServe answers a whole batch if the handler raises.
UNAVAILABLE, OUT_OF_MEMORY = 503, 507


class Observer:
    """Passes on what happened to each batch of one model; outside TorchServe's workers, it drops it."""

    def __init__(
        self, context: Any, contract: Contract, *, name: str, version: str, sha256: str | None
    ) -> None:
        """`name`, `version` and `sha256` are the archive's; `context` has the worker's metrics, or None."""
        self.tally = start_reporting(context.metrics, contract, name, version, sha256)
        in_a_worker = context.metrics is not None
        self._log = RequestLog(name, version, contract.outputs) if in_a_worker and asked_for() else None

    def watch(self, count: int, context: Any) -> Watch:
        """Return a context manager with the record of a batch of `count` requests, to be filled in."""
        return Watch(self, count, context)

    def take(self, batch: BatchRecord, context: Any) -> None:
        """Pass on the record of a finished batch."""
        if self.tally is not None:
            self.tally.add(batch)
        if self._log is not None:
            self._log.write(batch, context)


class Watch:
    """One batch in progress; a class, because contextlib's generators take a microsecond more."""

    __slots__ = ("_batch", "_context", "_count", "_observer")

    def __init__(self, observer: Observer, count: int, context: Any) -> None:
        self._observer, self._count, self._context = observer, count, context
        self._batch = BatchRecord()

    def __enter__(self) -> BatchRecord:
        return self._batch

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is not None:
            self._batch.fail(self._count, OUT_OF_MEMORY if isinstance(error, MemoryError) else UNAVAILABLE)
        self._batch.end()
        self._observer.take(self._batch, self._context)
