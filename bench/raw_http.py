"""Bytes sent to a server as they are, and what it answers: for requests that no HTTP library would send."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import time
from collections.abc import Iterable
from typing import NamedTuple

PATIENCE = 60.0  # seconds for one answer
# Instead of a status: the connection ended without an answer, or stayed open without one.
CLOSED, SILENT = 0, -1


class Reply(NamedTuple):
    """A status and a body; CLOSED or SILENT and the reason where none came."""

    status: int
    text: str
    sent: int = 0  # bytes that had gone out when the answer began


def exchange(
    port: int, pieces: Iterable[bytes], *, method: str = "PUT", pause: float = 0.0, half_close: bool = False
) -> Reply:
    """Send a request in pieces, with a pause between them, until an answer begins; return that answer.

    With `half_close` the server is told that nothing more will come, as by a client that was cut off.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = _send(connection, pieces, pause)
        if half_close:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        reply = http.client.HTTPResponse(connection, method=method)
        try:
            reply.begin()
            return Reply(reply.status, reply.read().decode("utf-8", "replace"), sent)
        except TimeoutError:
            return Reply(SILENT, f"no answer within {PATIENCE:.0f} s", sent)
        except (OSError, http.client.HTTPException) as error:
            return Reply(CLOSED, f"{type(error).__name__}: {error}", sent)


def _send(connection: socket.socket, pieces: Iterable[bytes], pause: float) -> int:
    sent = 0
    for piece in pieces:
        readable, _, _ = select.select([connection], [], [], 0)
        if readable:  # it has heard enough, and says so
            break
        try:
            connection.sendall(piece)
        except OSError:  # what it said before it closed can still be read
            break
        sent += len(piece)
        if pause:
            time.sleep(pause)
    return sent
