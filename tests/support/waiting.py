"""How long tests wait: no longer than it takes, and far longer than that before they give up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil

# Seconds for an answer, or for what has to happen by itself: it takes seconds, or a minute on a machine that
# is ten times slower. A wait ends when what it waits for is there; only a test that fails waits as long.
PATIENCE = 600.0
# Seconds for a command: some build archives or compile C++, and take a minute.
COMMAND = 1800.0
POLL = 0.05


def wait_until(condition: Callable[[], object]) -> None:
    """Return when a condition holds. Raises TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not happen within {PATIENCE:.0f} seconds")
        time.sleep(POLL)


def wait_for_the_end_of(processes: Iterable[psutil.Process]) -> None:
    """Return when all these processes have ended. Raises AssertionError with those that live."""
    _, alive = psutil.wait_procs(list(processes), PATIENCE)
    assert alive == []
