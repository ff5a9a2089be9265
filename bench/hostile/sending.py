"""Send hostile input; count and check the answers, and keep the inputs that fail the check."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import requests

from bench.hostile.isolated import answered
from bench.hostile.mutations import mutation, originals
from bench.hostile.requests import PATH, Hostile
from bench.load.images import DIGITS

OK, REFUSED, FAULTS = 200, 400, 500  # the first status of each class
PATIENCE = 60.0  # seconds for one answer
# Instead of a status: the connection ended without an answer, or stayed open without one.
CLOSED, SILENT = 0, -1
HEAD = ("input", "sent", "2xx", "4xx", "closed", "other", "workers died")


class Received(NamedTuple):
    """A status and a body, or CLOSED or SILENT and the reason."""

    status: int
    text: str
    sent: int = 0  # bytes that had gone out when the answer began


@dataclass
class Tally:
    """The answers to inputs of one kind."""

    name: str
    good: int = 0  # 2xx
    refused: int = 0  # 4xx
    closed: int = 0  # connections closed instead of an answer
    other: int = 0
    died: int = 0  # processes
    findings: dict[str, str] = field(default_factory=dict)  # by the input's name

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        counted = (self.good, self.refused, self.closed, self.other)
        return [self.name, *(f"{number:,}" for number in (sum(counted), *counted, self.died))]

    def count(self, status: int) -> None:
        """Count one answer's status."""
        if OK <= status < OK + 100:
            self.good += 1
        elif REFUSED <= status < FAULTS:
            self.refused += 1
        elif status == CLOSED:
            self.closed += 1
        else:
            self.other += 1


def in_a_process(archive: Path, kind: str, numbers: Iterable[int], seed: int, keep: Path) -> Tally:
    """Let the handler answer damaged images of a format, in a process that may crash."""
    tally = Tally(kind)
    body = partial(mutation, originals(), kind, seed=seed)
    for outcome in answered(archive, numbers, body):
        tally.count(outcome.status)
        tally.died += bool(outcome.end)
        if (fault := outcome.fault(list(DIGITS)) or outcome.cost) is not None:
            name = f"{kind} {outcome.number}"
            tally.findings[name] = fault
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{seed} {name}".replace(" ", "-")).write_bytes(body(outcome.number))
    return tally


def mutations_over_http(port: int, numbers: Iterable[int], seed: int, name: str) -> Tally:
    """Send damaged images of every format; each must get a label or an error message."""
    tally = Tally(name)
    files = originals()
    with requests.Session() as session:
        session.trust_env = False  # this machine's own address needs no proxy
        for number in numbers:
            kind = list(files)[number % len(files)]
            body = mutation(files, kind, number, seed)
            reply = session.put(f"http://127.0.0.1:{port}{PATH}", body, timeout=PATIENCE)
            tally.count(reply.status_code)
            if reply.status_code not in (OK, REFUSED) or not reply.text:
                tally.findings[f"{kind} {number}"] = f"{reply.status_code} {reply.text[:200]!r}"
    return tally


def hostile_over_http(port: int, hostile: Sequence[Hostile], name: str) -> Tally:
    """Send hostile requests, each on a connection of its own."""
    tally = Tally(name)
    for one in hostile:
        reply = sent(port, one)
        tally.count(reply.status)
        if not sound(one, reply):
            tally.findings[one.name] = f"{reply.status} {reply.text[:200]!r}"
    return tally


def sent(port: int, one: Hostile) -> Received:
    """Send one hostile request, and return what came back."""
    reply = exchange(port, one.pieces(), method=one.method, pause=one.pause, half_close=one.half_close)
    return reply._replace(text="HEAD gets no body") if one.method == "HEAD" else reply


def sound(one: Hostile, reply: Received) -> bool:
    """Return whether a reply is 2xx, 4xx with a message, or a closed connection where that is acceptable."""
    if reply.status == CLOSED:
        return one.may_be_dropped
    if OK <= reply.status < OK + 100:
        return True
    return REFUSED <= reply.status < FAULTS and bool(reply.text)


def exchange(
    port: int, pieces: Iterable[bytes], *, method: str = "PUT", pause: float = 0.0, half_close: bool = False
) -> Received:
    """Send a request in pieces, with a pause between them, until an answer begins; return that answer.

    With `half_close` the sending side is closed after the request, as by a client that was cut off.
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
            return Received(reply.status, reply.read().decode("utf-8", "replace"), sent)
        except TimeoutError:
            return Received(SILENT, f"no answer within {PATIENCE:.0f} s", sent)
        except (OSError, http.client.HTTPException) as error:
            return Received(CLOSED, f"{type(error).__name__}: {error}", sent)


def _send(connection: socket.socket, pieces: Iterable[bytes], pause: float) -> int:
    sent = 0
    for piece in pieces:
        readable, _, _ = select.select([connection], [], [], 0)
        if readable:  # the server has answered early
            break
        try:
            connection.sendall(piece)
        except OSError:  # what the server sent before can still be read
            break
        sent += len(piece)
        if pause:
            time.sleep(pause)
    return sent
