"""Servers of this project asked in turn by wrk: how many answers, and how much of a processor each takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from arms import PREDICTIONS, ROOT
from instance import Instance
from java import find_java
from load import Request, load
from readiness import wait_until_ready
from served_copies import describe
from settings import Settings

SECONDS, CONNECTIONS = 4, 32
READY = 60.0  # seconds
MICROSECONDS = 1e6


@dataclass(frozen=True)
class Asked:
    """A server that runs: its port, and its Java process, whose children the workers are."""

    port: int
    java: psutil.Process

    @property
    def processor(self) -> float:
        """The seconds of a processor that it has taken so far."""
        return sum(sum(one.cpu_times()[:2]) for one in (self.java, *self.java.children(recursive=True)))


@dataclass(frozen=True)
class Round:
    """What one server did in one round."""

    per_second: float
    processor: float  # µs an answer


@contextlib.contextmanager
def started(archive: Path, port: int, folder: Path, settings: str = "") -> Iterator[Asked]:
    """Start a server in a folder of its own, with further lines of settings, and stop it at the end."""
    config = folder / f"{port}.properties"
    config.write_text((ROOT / "config.properties").read_text(encoding="utf-8") + settings)
    instance = Instance(folder / str(port))
    archive = archive.resolve()
    state = instance.start(Settings.from_file(config, port), find_java(), [describe(archive)])
    try:
        wait_until_ready(state, instance.logs, READY)
        yield Asked(port, psutil.Process(state.pid))
    finally:
        instance.stop()


def measured(asked: dict[str, Asked], picture: bytes, folder: Path, rounds: int) -> dict[str, list[Round]]:
    """Return what each server did in each round, the first one, of warm-up, left out.

    Raises RuntimeError where a request failed.
    """
    request = Request(PREDICTIONS, picture)
    done: dict[str, list[Round]] = {name: [] for name in asked}
    for turn in range(rounds + 1):
        names = list(asked)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            before = asked[name].processor
            answers = load(asked[name].port, request, CONNECTIONS, SECONDS, folder)
            if answers.failed:
                raise RuntimeError(f"{name}: {answers.failed} requests of {answers.requests} failed")
            spent = (asked[name].processor - before) / answers.requests * MICROSECONDS
            done[name].append(Round(answers.per_second, spent))
    return {name: of[1:] for name, of in done.items()}
