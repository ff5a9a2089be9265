"""A disk that is soon full, for what is written there to fail. Only root can mount it."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE = "32m"
PIECE = bytes(2**16)


@contextlib.contextmanager
def small_disk(folder: Path, limits: str = f"size={SIZE}") -> Iterator[Path]:
    """Mount a disk of 32 MB, or with other limits of tmpfs's, as a folder, and yield the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", limits, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write until there is no room for another byte; return the file that takes it all."""
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
