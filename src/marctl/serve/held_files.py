"""Files that a server needs for as long as it runs: if somebody deletes one, it is restored."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

OWNER_ALONE = 0o700
MODE = 0o777


class HeldFiles:
    """Open files. The kernel keeps the content of an open file, even after it is deleted."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    def hold(self, path: Path) -> None:
        """Hold a file, replacing the one held under this name. Raises OSError."""
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._let_go(path)
        self._held[path] = number

    def let_go(self) -> None:
        """Release all files."""
        for path in list(self._held):
            self._let_go(path)

    def put_back(self) -> None:
        """Restore deleted files, each atomically. Raises OSError."""
        for path, number in self._held.items():
            if not path.exists():
                path.parent.mkdir(OWNER_ALONE, parents=True, exist_ok=True)
                _copy(number, path)

    def _let_go(self, path: Path) -> None:
        if (number := self._held.pop(path, None)) is not None:
            os.close(number)


def _copy(number: int, path: Path) -> None:
    """Copy an open file back to its path, with its mode."""
    whole = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        whole.touch(os.fstat(number).st_mode & MODE)
        shutil.copyfile(f"/proc/self/fd/{number}", whole)
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)
