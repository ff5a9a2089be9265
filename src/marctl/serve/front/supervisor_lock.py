"""The lock of a folder: the process that holds it is the supervisor of the folder's server.

The kernel releases a lock when its holder ends, however that happens. So neither a PID nor a clock decides
whether there is a supervisor, and of two that start at the same time only one gets the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from marctl.serve.make_command import LOCK
from marctl.serve.processes import NotEnded, Process, boot, end, living, processes

# A supervisor started by `make up` also holds its log open.
LOG = "keeper.log"
FOREGROUND = "--foreground"
PROGRAM = "marctl"  # by its script, or by `python -m`
DELETED = " (deleted)"
POLL = 0.02  # seconds between two checks of the lock
LOOKING = 1.0  # second; a process that only checks whether it is held, holds it for far less
HANDOVER = 10.0  # seconds until the holder of the lock has written its PID


@dataclass
class Supervision:
    """The lock of a folder."""

    folder: Path
    _held: int | None = field(default=None, init=False)

    @property
    def path(self) -> Path:
        """The file that is locked."""
        return self.folder / LOCK

    @property
    def is_held(self) -> bool:
        """Whether another process holds the lock."""
        try:
            number = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(number)
        return False

    @property
    def holder(self) -> Process | None:
        """The supervisor; None if there is none, or if it has not written its PID yet."""
        if self.is_held:
            return self._named()
        # A deleted lock file locks nothing, and an earlier version had none.
        return next((one for one in processes() if self._supervises(one)), None)

    def take(self) -> bool:
        """Take the lock for this process and those that inherit it; False if another process holds it."""
        if self.holder is not None:
            return False
        stop = time.monotonic() + LOOKING
        while not self._try():
            if time.monotonic() > stop:
                return False
            time.sleep(POLL)
        os.ftruncate(self.number, 0)  # the previous holder's PID
        return True

    def inherit(self, number: int) -> None:
        """Take over the parent process's lock, by its file descriptor."""
        os.set_inheritable(number, False)
        self._held = number

    @property
    def number(self) -> int:
        """The lock's file descriptor. Raises RuntimeError if this process does not hold the lock."""
        if self._held is None:
            raise RuntimeError(f"{self.path} is not locked by this process")
        return self._held

    def name(self, process: Process) -> None:
        """Write the supervisor's PID and start into the locked file."""
        text = json.dumps({"pid": process.pid, "started": process.started, "boot": boot()})
        os.pwrite(self.number, text.encode() + b"\n", 0)

    def name_me(self) -> None:
        """Write this process's PID and start into the locked file."""
        if (me := Process.of(os.getpid())) is not None:
            self.name(me)

    def leave(self) -> None:
        """Release the lock, or leave it to the processes that inherited it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def hold_on(self) -> None:
        """Create and lock the file again if it, or the whole folder, was deleted. Raises OSError."""
        if self.path.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        before, self._held = self._held, None
        if self._try():
            self.name_me()
            if before is not None:
                os.close(before)
        else:
            self._held = before

    def end(self, patience: float) -> bool:
        """End the supervisor, by force after `patience` seconds; return whether there was one.

        Raises NotEnded if it is still alive, or is not visible from here.
        """
        if (holder := self.wait()) is None:
            if self.is_held:
                raise NotEnded(
                    f"a process that is not visible from here holds {self.path}; wait for a start or stop "
                    "in progress, or stop it where it was started, such as in its container"
                )
            return False
        holder.ask(signal.SIGTERM)
        end([holder], patience)
        return True

    def wait(self, patience: float = HANDOVER) -> Process | None:
        """Return the supervisor as soon as its PID is known; None if there is none.

        Also None if another command still holds the lock after `patience` seconds.
        """
        stop = time.monotonic() + patience
        while (holder := self.holder) is None and self.is_held and time.monotonic() < stop:
            time.sleep(POLL)
        return holder

    def _try(self) -> bool:
        """Lock the file that is at the path now, if no process holds it."""
        number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(number), self.path.stat()):
                self._held = number
                return True
        os.close(number)
        return False

    def _named(self) -> Process | None:
        try:
            named = json.loads(self.path.read_text(encoding="utf-8"))
            return living(int(named["pid"]), int(named["started"]), str(named["boot"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None  # not written yet

    def _supervises(self, process: Process) -> bool:
        command = process.command
        if FOREGROUND not in command or not any(Path(word).name == PROGRAM for word in command):
            return False
        open_files = process.open_files or set()
        return f"{self.path}{DELETED}" in open_files or str(self.folder / LOG) in open_files
