"""Who supervises the server of a folder: the process that holds the folder's lock, for as long as it lives.

The kernel gives a lock back when its holder ends, however that happens. No number and no clock has to be
trusted to know whether there is a supervisor, and of two that start at once one gets it.
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

# What else a supervisor holds open: its output, where `make up` starts it.
LOG = "keeper.log"
FOREGROUND = "--foreground"
PROGRAM = "marctl"  # by its script, or by `python -m`
DELETED = " (deleted)"
POLL = 0.02  # seconds between two looks at the lock
LOOKING = 1.0  # second; who only looks whether it is held, holds it for far less
HANDOVER = 10.0  # seconds until who holds the lock has said who it is


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
        """The supervisor, None where there is none, or nobody can tell yet which process it is."""
        if self.is_held:
            return self._named()
        # A lock file that was deleted keeps nobody out; and an earlier version had none.
        return next((one for one in processes() if self._supervises(one)), None)

    def take(self) -> bool:
        """Take the lock for this process and those that inherit it; False where another one has it."""
        if self.holder is not None:
            return False
        stop = time.monotonic() + LOOKING
        while not self._try():
            if time.monotonic() > stop:
                return False
            time.sleep(POLL)
        os.ftruncate(self.number, 0)  # the name of the one before
        return True

    def inherit(self, number: int) -> None:
        """Take over the lock that the process which started this one took, by the number of its file."""
        os.set_inheritable(number, False)
        self._held = number

    @property
    def number(self) -> int:
        """The number of the lock's file in this process, which has it."""
        if self._held is None:
            raise RuntimeError(f"{self.path} is not locked by this process")
        return self._held

    def name(self, process: Process) -> None:
        """Write down which process the supervisor is, into the file that is locked."""
        text = json.dumps({"pid": process.pid, "started": process.started, "boot": boot()})
        os.pwrite(self.number, text.encode() + b"\n", 0)

    def name_me(self) -> None:
        """Write down that it is this process."""
        if (me := Process.of(os.getpid())) is not None:
            self.name(me)

    def leave(self) -> None:
        """Give the lock back, or leave it to the processes that inherited it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def hold_on(self) -> None:
        """Lock the file anew where somebody has deleted it, or the whole folder. Raises OSError."""
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

        Raises NotEnded where it still lives, or cannot be seen from here.
        """
        if (holder := self.wait()) is None:
            if self.is_held:
                raise NotEnded(
                    f"a process that cannot be seen from here holds {self.path}; wait for a start or stop "
                    "that is under way, or stop it where it was started, as in its container"
                )
            return False
        holder.ask(signal.SIGTERM)
        end([holder], patience)
        return True

    def wait(self, patience: float = HANDOVER) -> Process | None:
        """Return the supervisor as soon as it is known which process it is; None where there is none.

        None as well where the lock is still held by another command after `patience` seconds.
        """
        stop = time.monotonic() + patience
        while (holder := self.holder) is None and self.is_held and time.monotonic() < stop:
            time.sleep(POLL)
        return holder

    def _try(self) -> bool:
        """Lock the file that has the name now, if nobody has it."""
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
