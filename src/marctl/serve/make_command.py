"""The make command that acts on one server, by its run folder."""

from __future__ import annotations

import shlex
from pathlib import Path

USUAL = Path("run")
# The file that shows that a folder has a supervisor, and the subfolder of a second version.
LOCK, TWIN = "supervisor.lock", "twin"


def make_command(targets: str, folder: Path, *more: str) -> str:
    """Return the shell command for the server of a folder."""
    folder = folder.resolve()
    if folder.name == TWIN and (folder.parent / LOCK).exists():  # the second slot's: commands take the parent
        folder = folder.parent
    where = [] if folder == USUAL.resolve() else [f"RUN={shlex.quote(_shown(folder))}"]
    return " ".join(["make", targets, *more, *where])


def _shown(folder: Path) -> str:
    """Return the folder's path, relative if it is below the current folder."""
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
