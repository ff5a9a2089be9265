"""How long tests wait: only until the condition holds, with a very generous timeout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil

# Seconds to wait for a response or an event. It takes seconds, or a minute on a machine ten times slower;
# only a failing test waits this long.
PATIENCE = 600.0
# Seconds to wait for a command: those that build archives or compile C++ take a minute.
COMMAND = 1800.0
POLL = 0.05


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the condition did not hold within {PATIENCE:.0f} seconds")
        time.sleep(POLL)


def wait_for_the_end_of(processes: Iterable[psutil.Process]) -> None:
    """Wait until all these processes have ended. Raises AssertionError with those still alive."""
    _, alive = psutil.wait_procs(list(processes), PATIENCE)
    assert alive == []
