"""Where an archive's files come from: the last commit that touched them, and when that was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "unknown"
EPOCH = "SOURCE_DATE_EPOCH"
LATEST = 4354819198  # zip knows no time after 2107


class BadSource(ValueError):
    """A time that an archive cannot have."""


@dataclass(frozen=True)
class Source:
    """A commit, with `-dirty` where the files differ from it, and its time in seconds since 1970."""

    commit: str
    created: int


def source_of(files: Sequence[Path]) -> Source:
    """Ask git for the last commit that touched any of the files; outside of git it is unknown, at time 0.

    SOURCE_DATE_EPOCH, where it is set, gives the time, as reproducible-builds.org defines it.
    """
    names = [str(file) for file in files]
    commit, _, time = _git("log", "-1", "--format=%H %ct", "--", *names).partition(" ")
    known = _git("ls-files", "--error-unmatch", "--", *names)
    if commit and (not known or _git("status", "--porcelain", "--", *names)):
        commit += "-dirty"
    return Source(commit or UNKNOWN, _epoch() if os.environ.get(EPOCH) else int(time or 0))


def _epoch() -> int:
    """Return SOURCE_DATE_EPOCH. Raises BadSource where it is no time that a zip file knows."""
    value = os.environ[EPOCH]
    if not value.isdigit() or int(value) > LATEST:
        raise BadSource(f"{EPOCH} is {value!r}; it is a time in seconds since 1970, at most {LATEST}")
    return int(value)


def _git(*arguments: str) -> str:
    try:
        # A file's name is no pattern.
        command = ["git", "--literal-pathspecs", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
