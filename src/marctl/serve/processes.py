"""Identify processes independently of the clock, signal them, and wait until they have ended."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

from marctl.errors import UserError

POLL = 0.02  # seconds between two checks
KILLED = 5.0  # seconds until a killed process must be gone
# PIDs and starts are only unique within a boot; this identifies the boot.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Fields of /proc/PID/stat, counted from behind the name, which may contain spaces and brackets itself.
STATE, PARENT, SESSION, THREADS, STARTED = 0, 1, 3, 17, 19
ENDED, STOPPED = "ZX", "T"


class NotEnded(UserError):
    """A process that should have ended still runs; the message names it and the reason."""


class Known(Protocol):
    """A process that can be distinguished from a later one with the same PID."""

    @property
    def pid(self) -> int:
        """The PID."""

    def is_running(self) -> bool:
        """Return whether the PID is still this process's: until it has ended and its parent has reaped it."""


OneKnown = TypeVar("OneKnown", bound=Known)


@dataclass(frozen=True)
class Process:
    """A snapshot of a process.

    `started` is in clock ticks since boot: PID and start identify a process for as long as the machine runs,
    even if its clock is changed.
    """

    pid: int
    # Not part of its identity: two snapshots of a process may differ in these.
    name: str = field(compare=False)
    state: str = field(compare=False)
    parent: int = field(compare=False)
    session: int = field(compare=False)
    threads: int = field(compare=False)
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has this PID now, None if there is none."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        name, _, rest = stat.partition("(")[2].rpartition(")")
        words = rest.split()
        numbers = (int(words[place]) for place in (PARENT, SESSION, THREADS, STARTED))
        return cls(pid, name, words[STATE], *numbers)

    @property
    def command(self) -> list[str]:
        """Its command line; empty if it has ended."""
        return [word.decode(errors="replace") for word in self._read("cmdline").split(b"\0") if word]

    @property
    def environment(self) -> dict[str, str]:
        """The environment it was started with; empty if this user may not read it."""
        words = (word.decode(errors="replace").partition("=") for word in self._read("environ").split(b"\0"))
        return {key: value for key, _, value in words}

    @property
    def open_files(self) -> set[str] | None:
        """The paths of its open files, as they are now; None if this user may not read them."""
        try:
            links = list(Path(f"/proc/{self.pid}/fd").iterdir())
        except PermissionError:
            return None
        except OSError:
            return set()
        found = set()
        for link in links:
            with contextlib.suppress(OSError):  # closed in the meantime
                found.add(str(link.readlink()))
        return found

    def is_running(self) -> bool:
        """Return whether the PID is still this process's."""
        now = Process.of(self.pid)
        return now is not None and now.started == self.started

    def ask(self, number: int) -> None:
        """Send a signal, then SIGCONT for a suspended process. Raises NotEnded if this user may not."""
        try:
            for each in (number, signal.SIGCONT):
                if self.is_running():
                    os.kill(self.pid, each)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise NotEnded(f"{self} belongs to {_owner(self.pid)}; stop it as that user") from error

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"

    def _read(self, file: str) -> bytes:
        try:
            return Path(f"/proc/{self.pid}/{file}").read_bytes()
        except OSError:
            return b""


@lru_cache
def boot() -> str:
    """Return the kernel's ID of this boot; "" if there is none."""
    try:
        return BOOT_ID.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def living(pid: int, started: int, of_boot: str) -> Process | None:
    """Return the process with this PID and start, None if it has ended."""
    process = Process.of(pid) if of_boot == boot() else None
    return process if process is not None and process.started == started and lives(process) else None


def processes() -> Iterator[Process]:
    """Yield all processes except this one."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = (Process.of(pid) for pid in numbers if pid != os.getpid())
    yield from (process for process in found if process is not None)


def end(them: Iterable[Known], patience: float) -> None:
    """Wait until all have ended; kill those still alive after `patience` seconds. Raises NotEnded."""
    late = wait_for_end(them, patience)
    for one in late:
        if one.is_running():
            try:
                os.kill(one.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError as error:
                raise NotEnded(f"{_shown(one)} belongs to {_owner(one.pid)}; stop it as that user") from error
    if left := wait_for_end(late, KILLED):
        raise NotEnded(f"{', '.join(map(_shown, left))} did not end when killed; see: ps -o stat,wchan -p "
                       f"{','.join(str(one.pid) for one in left)}")  # fmt: skip


def wait_for_end(them: Iterable[OneKnown], patience: float) -> list[OneKnown]:
    """Return those still alive after `patience` seconds; return at once when none is."""
    stop = time.monotonic() + patience
    alive = [one for one in them if lives(one)]
    while alive and time.monotonic() < stop:
        time.sleep(POLL)
        alive = [one for one in alive if lives(one)]
    return alive


def lives(process: Known) -> bool:
    """Return whether a process still runs.

    A zombie that its parent has not reaped does not; one whose other threads are still ending does.
    """
    now = Process.of(process.pid) if process.is_running() else None
    return now is not None and (now.state not in ENDED or now.threads > 1)


def _shown(one: Known) -> str:
    return str(Process.of(one.pid) or f"process {one.pid}")


def _owner(pid: int) -> str:
    """Name the user who owns a process."""
    try:
        number = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return "another user"
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
