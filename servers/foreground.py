"""TorchServe in the foreground: what ends it, and who is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from instance import Running, process_of
from readiness import tail

POLL = 0.5  # seconds between two looks at TorchServe's process
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ended(RuntimeError):
    """TorchServe ended by itself; the text says how, and its last words."""


class Stopped(BaseException):  # as KeyboardInterrupt: nobody takes it for an error of what it interrupts
    """A signal asks to stop; the text is its name."""


def stop_on_signals() -> None:
    """Raise Stopped at the first SIGTERM or SIGINT, whatever is being done; pass over the later ones.

    Needed at a container's first process, to which the kernel sends no signal without a handler.
    """
    for number in SIGNALS:
        signal.signal(number, _stop)


def watch(state: Running, log: Path) -> NoReturn:
    """Wait for TorchServe's end. Raises Ended, or Stopped as `stop_on_signals` says."""
    while process_of(state) is not None:
        time.sleep(POLL)
    raise Ended(f"TorchServe ended by itself{_status(state.pid)}; the end of its log:\n{tail(log)}")


def _stop(number: int, _: FrameType | None) -> NoReturn:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # stopping is not interrupted
    raise Stopped(signal.Signals(number).name)


def _status(pid: int) -> str:
    """Say with which status a process ended, where the kernel tells: it made a container's orphans ours."""
    try:
        # Not WNOHANG: while the threads of a killed process still end, there is no status yet.
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f", by {signal.Signals(-code).name}" if code < 0 else f" with status {code}"
