"""A faster version of the worker's side of TorchServe's socket.

TorchServe 0.12.0 reads a batch field by field, with two system calls for each: some forty for a request with
four headers. And for every batch it prints two lines, which its front end reads and parses. With a fast model
that is a large part of a worker's time; docs/performance.md has the figures. The messages stay the same, byte
for byte; only how they are read changes.
"""

from __future__ import annotations

import logging
import os
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ts
from ts.protocol import otf_message_handler as protocol

NAME, KNOWN = "socket", "0.12.0"
BUFFER = 2**16  # bytes; a larger body is read at once, past the buffer
END_OF_LIST = -1
CHATTER = "Backend received inference at"
METRICS_EVERY = 1.0  # seconds between two values of a gauge: only the last one counts

Read = Callable[[int], bytes]
_int = struct.Struct("!i").unpack


def speed_up(metrics: Any) -> None:
    """Read from the front end through a buffer from now on, and do not print lines about each batch.

    `metrics` is the worker's, None outside one, where no front end is read. With any other version of
    TorchServe, or with UNPATCHED=socket in the environment, nothing changes.
    """
    left_out = os.environ.get("UNPATCHED", "").replace(" ", "").split(",")
    if metrics is None or ts.__version__ != KNOWN or NAME in left_out:
        return
    receiver = Receiver()
    protocol._retrieve_buffer = receiver.exactly
    protocol._retrieve_inference_msg = receiver.batch
    logging.getLogger().addFilter(_is_no_chatter)
    metrics.add_time = _now_and_then(metrics.add_time)


class Receiver:
    """Reads from the front end's connection through a buffer."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._read: Read

    def exactly(self, connection: Any, length: int) -> bytes:
        """Return exactly `length` bytes; end the worker if the front end has closed the connection."""
        data = self._reader(connection)(length)
        if len(data) < length:
            _end()
        return data

    def batch(self, connection: Any) -> list[dict[str, Any]]:
        """Return the requests of a batch as TorchServe does, every body as the bytes that were sent."""
        try:
            return list(iter(partial(_request, self._reader(connection)), None))
        except struct.error:  # the connection ended within a number
            _end()
            raise

    def _reader(self, connection: Any) -> Read:
        if connection is not self._connection:
            self._connection, self._read = connection, connection.makefile("rb", BUFFER).read
        return self._read


def _request(read: Read) -> dict[str, Any] | None:
    """Return one request, None at the end of the batch. Raises struct.error if the connection ends."""
    (length,) = _int(read(4))
    if length == END_OF_LIST:
        return None
    name = read(length)
    headers: list[dict[str, bytes]] = []
    parameters: list[dict[str, str | bytes]] = []
    request = {"requestId": name, "headers": headers, "parameters": parameters}
    while (length := _int(read(4))[0]) != END_OF_LIST:
        name = read(length)
        headers.append({"name": name, "value": read(_int(read(4))[0])})
    while (length := _int(read(4))[0]) != END_OF_LIST:
        name, kind = read(length), read(_int(read(4))[0])
        value = read(_int(read(4))[0])
        parameters.append({"name": name.decode(), "contentType": kind.decode(), "value": value})
    return request


def _end() -> None:
    logging.info("Frontend disconnected.")
    sys.exit(0)


def _is_no_chatter(record: logging.LogRecord) -> bool:
    return not (isinstance(record.msg, str) and record.msg.startswith(CHATTER))


def _now_and_then(add_time: Callable[..., None]) -> Callable[..., None]:
    """Return a function that passes on one value per second of each metric, and drops the others."""
    due: dict[str, float] = {}

    def add(name: str, *values: Any, **options: Any) -> None:
        now = time.monotonic()
        if now >= due.get(name, now):
            due[name] = now + METRICS_EVERY
            add_time(name, *values, **options)

    return add
