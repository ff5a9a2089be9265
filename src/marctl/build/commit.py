"""Find the last commit that touched a model's files, and its time."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marctl.archive.claims import LATEST, UNKNOWN
from marctl.errors import UserError

EPOCH = "SOURCE_DATE_EPOCH"
NO_REPOSITORY = "not a git repository"
DISTRUSTED = re.compile(r"detected dubious ownership in repository at '(.*)'")


class NotTold(RuntimeError):
    """There is a repository, but git cannot read it; the message says why, and the remedy."""


@dataclass(frozen=True)
class Source:
    """A commit, with `-dirty` if the files differ from it, and its time in seconds since 1970.

    If there is a repository that git cannot read, `doubt` says why: elsewhere, the same files would have a
    commit.
    """

    commit: str
    created: int
    doubt: str = ""


def source_of(files: Sequence[Path]) -> Source:
    """Return the last commit that touched any of the files; outside of git it is unknown, at time 0.

    The repository is that of the first file. If SOURCE_DATE_EPOCH is set, it replaces the time, as
    reproducible-builds.org defines it. Raises UserError if it is not a time.
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
    # The last part is not resolved: git tracks a link, not its target.
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
    """Return SOURCE_DATE_EPOCH. Raises UserError if it is not a time that a zip file can hold."""
    value = os.environ[EPOCH]
    if not value.isdigit() or int(value) > LATEST:
        raise UserError(f"{EPOCH} is {value!r}; set it to seconds since 1970, at most {LATEST}")
    return int(value)


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints, or an empty string if there is no repository. Raises NotTold.

    Git does not trust another user's repository, whose settings could make it run programs. That check is not
    switched off here.
    """
    # Names are not patterns, and a read-only repository is not written to.
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
            f"git does not trust {root}, which belongs to another user; to trust it: "
            f"git config --global --add safe.directory '{root}'"
        )
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    raise NotTold(f"git fails in {folder}: {said[-1]}")
