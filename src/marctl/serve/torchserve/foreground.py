"""TorchServe in the foreground: what ends it, and who is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NoReturn

from marctl.errors import UserError
from marctl.serve.torchserve.instance import Running, process_of
from marctl.serve.torchserve.readiness import tail

POLL = 0.5  # seconds between two looks at TorchServe's process


def watch(state: Running, log: Path) -> NoReturn:
    """Wait for TorchServe's end. Raises UserError, or Stopped as `stop_on_signals` says."""
    while process_of(state) is not None:
        time.sleep(POLL)
    raise UserError(f"TorchServe ended by itself{_status(state.pid)}; the end of its log:\n{tail(log)}")


def _status(pid: int) -> str:
    """Say with which status a process ended, where the kernel tells: it made a container's orphans ours."""
    try:
        # Not WNOHANG: while the threads of a killed process still end, there is no status yet.
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f", by {signal.Signals(-code).name}" if code < 0 else f" with status {code}"
