"""Limits on a server's memory and disk, as in containers and on full disks. Only root can set them."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
# Where the kernel has the memory controller: version 2, or the older version 1.
SECOND, FIRST = (CONTROL_GROUPS, "memory.max"), (CONTROL_GROUPS / "memory", "memory.limit_in_bytes")
ENTER = 'echo $$ > "$0" && exec "$@"'
DISK = "32m"
PIECE = bytes(2**16)


@contextlib.contextmanager
def memory_limit(room: int) -> Iterator[tuple[str, ...]]:
    """Yield a command prefix that limits a command and its child processes to `room` bytes together.

    If they need more, the kernel kills one of them.
    """
    parent, setting = SECOND if (CONTROL_GROUPS / "cgroup.controllers").exists() else FIRST
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


@contextlib.contextmanager
def small_disk(folder: Path, limits: str = f"size={DISK}") -> Iterator[Path]:
    """Mount a tmpfs of 32 MB, or with other limits, on a folder, and yield the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", limits, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk to the last byte; return the file that takes the space."""
    path = folder / "full"
    with path.open("wb", buffering=0) as file:
        for piece in (PIECE, b"\0"):
            try:
                while file.write(piece) == len(piece):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return path
