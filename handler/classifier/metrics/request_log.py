"""A line of JSON for each request, with REQUEST_LOG=1 in the environment.

It says nothing about the image or its sender: no bytes, no names, no addresses, and no label, which is what
the image shows. The request's number is the x-request-id of its answer.
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
    """Logs what happened to the requests for one version of a model."""

    def __init__(self, model: str, version: str, kind: str | None) -> None:
        self._kind = kind  # of the model's outputs
        self._of = {"model": model, "version": version}

    def write(self, batch: BatchRecord, context: Any) -> None:
        """Write a line for each request of a finished batch."""
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
    """Return each request's index in the batch and its own values, in the order of arrival."""
    each: list[tuple[int, dict[str, Any]]] = [
        (index, {"status": status} | ({"reason": reason} if reason else {}))
        for index, status, reason in batch.refused
    ]
    if batch.outputs is not None:
        sure = confidences(batch.outputs, kind).tolist()
        each += [(index, _answered(batch.decoding[its], sure[its])) for index, its in batch.images()]
    return sorted(each, key=lambda one: one[0])


def _answered(decoding: list[float], sure: list[float]) -> dict[str, Any]:
    """Return the values of a request: for several images, how many, and the lowest confidence."""
    values = {"status": OK, "decode_seconds": round(sum(decoding), 6), "confidence": round(min(sure), 6)}
    return values | ({"pictures": len(sure)} if len(sure) > 1 else {})
