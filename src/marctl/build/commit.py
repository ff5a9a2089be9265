"""Where a model's files come from: the last commit that touched them, and when that was."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marctl.errors import UserError

UNKNOWN = "unknown"
EPOCH = "SOURCE_DATE_EPOCH"
LATEST = 4354819198  # zip knows no time after 2107
NO_REPOSITORY = "not a git repository"
DISTRUSTED = re.compile(r"detected dubious ownership in repository at '(.*)'")


class NotTold(RuntimeError):
    """There is a repository, and git does not tell of it; the text says why, and the remedy."""


@dataclass(frozen=True)
class Source:
    """A commit, with `-dirty` where the files differ from it, and its time in seconds since 1970.

    `doubt` says why git could not tell, where there is a repository: the same files had a commit elsewhere.
    """

    commit: str
    created: int
    doubt: str = ""


def source_of(files: Sequence[Path]) -> Source:
    """Ask git for the last commit that touched any of the files; outside of git it is unknown, at time 0.

    The repository is that of the first file. SOURCE_DATE_EPOCH, where it is set, gives the time, as
    reproducible-builds.org defines it. Raises UserError where that is no time.
    """
    doubt = ""
    try:
        commit, time = _last_commit(files)
    except NotTold as error:
        commit, time, doubt = UNKNOWN, 0, str(error)
    return Source(commit, _epoch() if os.environ.get(EPOCH) else time, doubt)


def _last_commit(files: Sequence[Path]) -> tuple[str, int]:
    folder = files[0].resolve().parent
    root = _git(folder, "rev-parse", "--show-toplevel")
    if not root:
        return UNKNOWN, 0
    # A link in the place of a file is what git knows.
    paths = [file.parent.resolve() / file.name for file in files]
    inside = [str(path) for path in paths if path.is_relative_to(root)]
    commit, _, time = _git(folder, "log", "-1", "--format=%H %ct", "--", *inside).partition(" ")
    if not commit:
        return UNKNOWN, 0
    unknown = len(inside) < len(paths) or len(_tracked(folder, inside)) < len(set(inside))
    changed = unknown or _git(folder, "status", "--porcelain", "--", *inside)
    return commit + ("-dirty" if changed else ""), int(time)


def _tracked(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in _git(folder, "ls-files", "-z", "--", *names).split("\0") if name]


def _epoch() -> int:
    """Return SOURCE_DATE_EPOCH. Raises UserError where it is no time that a zip file knows."""
    value = os.environ[EPOCH]
    if not value.isdigit() or int(value) > LATEST:
        raise UserError(f"{EPOCH} is {value!r}; it is a time in seconds since 1970, at most {LATEST}")
    return int(value)


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints; nothing where there is no repository. Raises NotTold.

    Git trusts no repository of another user, whose settings could name programs for it to run, and it is
    not talked into it here.
    """
    # A file's name is no pattern; a repository that may only be read is not written to.
    command = ["git", "-C", str(folder), "--literal-pathspecs", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
        )
    except OSError as error:
        if any((above / ".git").exists() for above in (folder, *folder.parents)):
            raise NotTold(f"git cannot be run ({error.strerror}); install git") from error
        return ""
    if done.returncode == 0:
        return done.stdout.strip()
    if NO_REPOSITORY in done.stderr:
        return ""
    if (found := DISTRUSTED.search(done.stderr)) is not None:
        root = found[1]
        raise NotTold(
            f"git does not trust {root}, which belongs to another user; trust it once: "
            f"git config --global --add safe.directory '{root}'"
        )
    said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    raise NotTold(f"git cannot tell of {folder}: {said[-1]}")
