"""Wait until processes have ended, whether or not anybody has asked for their status yet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import psutil

POLL = 0.02  # seconds between two looks
SAME = 1.0  # second, within which the kernel tells a process's start
KILLED = 5.0  # seconds that the kernel gets for a killed process


def living(pid: int, created: float) -> psutil.Process | None:
    """Return the process of this number that was started then, None where it has ended.

    `created` is in seconds since 1970: a number alone may have gone to another process.
    """
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - created) < SAME and lives(process) else None
    except psutil.NoSuchProcess:
        return None


def end(processes: Iterable[psutil.Process], patience: float) -> None:
    """Return when all have ended; kill those that have not after `patience` seconds."""
    late = wait_for_end(processes, patience)
    for process in late:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for_end(late, KILLED)


def wait_for_end(processes: Iterable[psutil.Process], patience: float) -> list[psutil.Process]:
    """Return those that still live after `patience` seconds; at once when none does."""
    stop = time.monotonic() + patience
    alive = [process for process in processes if lives(process)]
    while alive and time.monotonic() < stop:
        time.sleep(POLL)
        alive = [process for process in alive if lives(process)]
    return alive


def lives(process: psutil.Process) -> bool:
    """Tell whether a process still runs; a zombie, whose parent has not asked for its status, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
