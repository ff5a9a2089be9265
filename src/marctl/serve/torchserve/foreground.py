"""TorchServe in the foreground: wait for its end, and report why it ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NoReturn

from marctl.errors import UserError
from marctl.serve.torchserve.instance import Running, process_of
from marctl.serve.torchserve.readiness import tail

POLL = 0.5  # seconds between two checks of TorchServe's process


def watch(state: Running, log: Path) -> NoReturn:
    """Wait for TorchServe's end. Raises UserError, or Stopped after a signal."""
    while process_of(state) is not None:
        time.sleep(POLL)
    raise UserError(f"TorchServe ended by itself{_status(state.pid)}; the end of its log:\n{tail(log)}")


def _status(pid: int) -> str:
    """Describe the status of an ended process; "" if it is not our child, as an orphan in a container is."""
    try:
        # Not WNOHANG: there is no status until all threads of a killed process have ended.
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f", by {signal.Signals(-code).name}" if code < 0 else f" with status {code}"
