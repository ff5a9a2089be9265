"""The command that does something to this server, and to no other one."""

from __future__ import annotations

import shlex
from pathlib import Path

USUAL = Path("run")
# What a folder that has a supervisor is told by, and what a second version's folder in it is called.
LOCK, TWIN = "supervisor.lock", "twin"


def make_command(targets: str, folder: Path, *more: str) -> str:
    """Return the command for the server of a folder, as a shell takes it."""
    folder = folder.resolve()
    if folder.name == TWIN and (folder.parent / LOCK).exists():  # another version's, beside the first one
        folder = folder.parent
    where = [] if folder == USUAL.resolve() else [f"RUN={shlex.quote(_shown(folder))}"]
    return " ".join(["make", targets, *more, *where])


def _shown(folder: Path) -> str:
    """Return the folder's name from here, where it lies below."""
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
