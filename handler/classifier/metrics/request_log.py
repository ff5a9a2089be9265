"""A line of JSON for each request, where it is asked for by REQUEST_LOG=1 in the environment.

It holds nothing of an image or of who sent it: no bytes, no names, no addresses, and no label either, which
is what the image shows. The request's number is the one that its answer has as x-request-id.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from ..outputs import confidences
from .batch_record import BatchRecord

ASKED = "REQUEST_LOG"
OK = 200

logger = logging.getLogger(__name__)


class RequestLog:
    """Writes what happened to the requests of one model's version."""

    def __init__(self, model: str, version: str, kind: str | None) -> None:
        self._kind = kind  # of the model's outputs
        self._of = {"model": model, "version": version}

    def write(self, batch: BatchRecord, context: Any) -> None:
        """Write a line for each request of a batch that has ended."""
        shared = {**self._of, "batch": batch.size, "seconds": round(batch.seconds, 6)}
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        lines = [
            json.dumps({"time": now, "request": context.get_request_id(index), **shared, **own})
            for index, own in _each(batch, self._kind)
        ]
        if lines:
            logger.info("\n".join(lines))


def asked_for() -> bool:
    """Return whether this process was started with REQUEST_LOG=1."""
    return os.environ.get(ASKED) == "1"


def _each(batch: BatchRecord, kind: str | None) -> list[tuple[int, dict[str, Any]]]:
    """Return each request's place in the batch, and what is its own, in the order in which they came."""
    each: list[tuple[int, dict[str, Any]]] = [
        (index, {"status": status} | ({"reason": reason} if reason else {}))
        for index, status, reason in batch.refused
    ]
    if batch.outputs is not None:
        sure = confidences(batch.outputs, kind).tolist()
        each += [(index, _answered(batch.decoding[its], sure[its])) for index, its in batch.images()]
    return sorted(each, key=lambda one: one[0])


def _answered(decoding: list[float], sure: list[float]) -> dict[str, Any]:
    """Return what is told of a request: of several images how many, and the least confidence."""
    told = {"status": OK, "decode_seconds": round(sum(decoding), 6), "confidence": round(min(sure), 6)}
    return told | ({"pictures": len(sure)} if len(sure) > 1 else {})
