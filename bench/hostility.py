"""Hostile input sent, and what came back: counted, held to what must be, and kept where it is not so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import requests

from hostile_requests import PATH, Hostile
from mutations import mutation, originals
from one_by_one import answered
from raw_http import CLOSED, Reply, exchange

OK, REFUSED, FAULTS = 200, 400, 500  # where each class of statuses begins
PATIENCE = 60.0  # seconds for one answer
IMAGES = Path(__file__).parents[1] / "tests" / "images"
DIGITS = {str(digit): (IMAGES / f"{digit}.png").read_bytes() for digit in range(10)}
HEAD = ("input", "sent", "2xx", "4xx", "closed", "other", "workers died")


@dataclass
class Tally:
    """What a number of inputs of one kind got."""

    name: str
    good: int = 0     # 2xx
    refused: int = 0  # 4xx
    closed: int = 0   # a connection's end instead of an answer
    other: int = 0
    died: int = 0     # processes
    findings: dict[str, str] = field(default_factory=dict)  # by the input's name

    @property
    def cells(self) -> list[str]:
        """The row as the table has it."""
        counted = (self.good, self.refused, self.closed, self.other)
        return [self.name, *(f"{number:,}" for number in (sum(counted), *counted, self.died))]

    def count(self, status: int) -> None:
        """Take down one answer's status."""
        if OK <= status < OK + 100:
            self.good += 1
        elif REFUSED <= status < FAULTS:
            self.refused += 1
        elif status == CLOSED:
            self.closed += 1
        else:
            self.other += 1


def in_a_process(archive: Path, kind: str, numbers: Iterable[int], seed: int, keep: Path) -> Tally:
    """Have the handler answer spoilt pictures of a format, in a process that may die of them."""
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


def spoilt_pictures_over_http(port: int, numbers: Iterable[int], seed: int, name: str) -> Tally:
    """Send spoilt pictures of every format; each gets a label or a sentence."""
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


def sent(port: int, one: Hostile) -> Reply:
    """Send one hostile request, and return what came of it."""
    reply = exchange(port, one.pieces(), method=one.method, pause=one.pause, half_close=one.half_close)
    return reply._replace(text="HEAD gets no body") if one.method == "HEAD" else reply


def sound(one: Hostile, reply: Reply) -> bool:
    """Tell whether a reply is 2xx, or 4xx with a sentence, or the end of a request that came to none."""
    if reply.status == CLOSED:
        return one.may_be_dropped
    if OK <= reply.status < OK + 100:
        return True
    return REFUSED <= reply.status < FAULTS and bool(reply.text)
