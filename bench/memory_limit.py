"""A limit to the memory of all that a command starts, as a container has it. Only root can set it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# Where the kernel has the memory controller: version 2, or the older version 1.
SECOND, FIRST = (ROOT, "memory.max"), (ROOT / "memory", "memory.limit_in_bytes")
ENTER = 'echo $$ > "$0" && exec "$@"'


@contextlib.contextmanager
def memory_limit(room: int) -> Iterator[tuple[str, ...]]:
    """Yield the words that, before a command, give it and all that it starts so many bytes together.

    Where one of them asks for more, the kernel kills one.
    """
    parent, setting = SECOND if (ROOT / "cgroup.controllers").exists() else FIRST
    group = parent / f"limited-{os.getpid()}"
    members = group / "cgroup.procs"
    group.mkdir()
    try:
        (group / setting).write_text(str(room), encoding="ascii")
        yield ("sh", "-c", ENTER, str(members))
    finally:
        for pid in members.read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                (parent / "cgroup.procs").write_text(pid, encoding="ascii")
        group.rmdir()
