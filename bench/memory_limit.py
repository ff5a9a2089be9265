"""A limit to the memory of running processes, as a container has it. Only root can set it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

ROOT = Path("/sys/fs/cgroup")
# Where the kernel has the memory controller: version 2, or the older version 1.
SECOND, FIRST = (ROOT, "memory.max"), (ROOT / "memory", "memory.limit_in_bytes")


@contextlib.contextmanager
def memory_limit(processes: Iterable[psutil.Process], room: int) -> Iterator[Path]:
    """Give processes and their later children so many bytes more than they have; yield the group's folder.

    Where one of them asks for more, the kernel kills one. What they have already stays on their old group's
    account.
    """
    parent, setting = SECOND if (ROOT / "cgroup.controllers").exists() else FIRST
    members = list(processes)
    group = parent / f"limited-{os.getpid()}"
    home = parent / "cgroup.procs"
    group.mkdir()
    try:
        (group / setting).write_text(str(room), encoding="ascii")
        for process in members:
            (group / "cgroup.procs").write_text(str(process.pid), encoding="ascii")
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                home.write_text(pid, encoding="ascii")
        group.rmdir()
