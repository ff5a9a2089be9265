"""Resident memory of a served archive's processes, by what they are; and what of it stays for good."""

from __future__ import annotations

import contextlib
import time

import psutil

from keeper import kept_in
from up_process import Up

MEGABYTE = 1e6
# MB that each kind of process may keep of what hostile input made it take. A worker keeps up to the 64 MB of
# MALLOC_TRIM_THRESHOLD_ in servers/instance.py at the top of its heap, and more in holes below it. Java's
# heap grows to what it needed at once and shrinks late.
BOUND = {"worker": 100.0, "Java": 400.0, "nginx": 30.0, "keeper": 30.0}
PATIENCE = 60.0  # seconds until what is given back has been given back
EVERY = 2.0      # seconds between two looks


def resident(up: Up) -> dict[str, float]:
    """Return the resident MB of the largest process of each kind."""
    state = kept_in(up.run)
    keepers = [psutil.Process(state.pid)] if state and psutil.pid_exists(state.pid) else []
    kinds = {"worker": up.workers, "Java": [up.java], "nginx": _nginx(up), "keeper": keepers}
    return {kind: max(map(_megabytes, processes), default=0.0) for kind, processes in kinds.items()}


def settled(up: Up, before: dict[str, float] | None = None) -> dict[str, float]:
    """Return the memory once it is within BOUND of what it was, or what it is when patience is over."""
    end = time.monotonic() + PATIENCE
    while True:
        now = resident(up)
        if before is None or all(now[kind] <= before[kind] + BOUND[kind] for kind in BOUND):
            return now
        if time.monotonic() > end:
            return now
        time.sleep(EVERY)


def _nginx(up: Up) -> list[psutil.Process]:
    pid = int((up.run / "door" / "nginx.pid").read_text(encoding="ascii"))
    with contextlib.suppress(psutil.NoSuchProcess):
        master = psutil.Process(pid)
        return [master, *master.children()]
    return []


def _megabytes(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        return float(process.memory_info().rss) / MEGABYTE
    return 0.0
