"""Records of what this checkout made, and from what, in a folder of their own.

A file beside an archive may be anybody's. Only these records decide whether a file was made here, so that it
may be overwritten, and whether it is up to date.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from marctl.errors import UserError

FOLDER = Path(".made")
READ_ONLY = (errno.EROFS, errno.EACCES)  # a read-only file system, another user's folder


@dataclass(frozen=True)
class Record:
    """A file or folder that was made: its SHA-256, the SHA-256 of its inputs, and the options given.

    `source` is the commit of its files, if it was looked up. `before` is the SHA-256 of what it replaced: a
    build that is stopped between writing the record and the file leaves the older file.
    """

    path: str
    sha256: str
    inputs: str
    options: dict[str, str] = field(default_factory=dict)
    before: str = ""
    source: str = ""


class Records:
    """The records of one checkout: a JSON file for each file or folder made."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def of(self, path: Path) -> Record | None:
        """Return the record of a file, or None if it is missing or unreadable."""
        return _read(self._file(path))

    def all(self) -> list[Record]:
        """Return all readable records."""
        found = (_read(file) for file in sorted(self._folder.glob("*.json")))
        return [record for record in found if record is not None]

    def is_ours(self, path: Path) -> bool:
        """Return whether a file is byte for byte what was made here."""
        record = self.of(path)
        found = _digest_of_any(path)
        return record is not None and found != "" and found in (record.sha256, record.before)

    def is_fresh(self, path: Path, inputs: str) -> bool:
        """Return whether a file was made here from exactly these inputs, and has not changed since."""
        record = self.of(path)
        return record is not None and record.inputs == inputs and _digest_of_any(path) == record.sha256

    def check_may_write(self, path: Path, remedy: str) -> None:
        """Raise UserError if something exists at a path that was not made here."""
        if _exists(path) and not self.is_ours(path):
            raise UserError(f"{path} was not made by this checkout and is left as it is; {remedy}")

    def write(
        self, path: Path, sha256: str, inputs: str, options: dict[str, str] | None = None, source: str = ""
    ) -> None:
        """Record what is about to be written to a path."""
        before = _digest_of_any(path)
        record = Record(str(_place(path)), sha256, inputs, options or {}, before, source)
        file = self._file(path)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        part.replace(file)

    def forget(self, path: Path) -> None:
        """Remove the record of a file."""
        self._file(path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def making(self, path: Path) -> Iterator[None]:
        """Hold a lock, so that another process that makes the same file waits for this one.

        In a read-only checkout nothing is made, and there is no lock.
        """
        with contextlib.ExitStack() as turn:
            try:
                self._folder.mkdir(exist_ok=True)
                lock = turn.enter_context(self._file(path).with_suffix(".lock").open("w"))
            except OSError as error:
                if error.errno not in READ_ONLY:
                    raise
            else:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _file(self, path: Path) -> Path:
        return self._folder / f"{hashlib.sha256(os.fsencode(_place(path))).hexdigest()[:32]}.json"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and bytes of all files in a folder."""
    if not path.is_dir():
        return _of_file(path)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.parent.name != "__pycache__"]
    return digest_of(word for file in files for word in (str(file.relative_to(path)), _of_file(file)))


def digest_of(words: Iterable[str]) -> str:
    """Return the SHA-256 of a list of strings."""
    # As JSON, so that no two lists give the same text.
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()


def _digest_of_any(path: Path) -> str:
    """Return the SHA-256 of what is at a path, or an empty string if it is neither a file nor a folder."""
    # A pipe or a device may have no end, a link may lead nowhere.
    return digest(path) if path.is_file() or path.is_dir() else ""


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(path: Path) -> Path:
    # The last part is not resolved: a link to a file is not that file.
    return path.parent.resolve() / path.name


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _read(file: Path) -> Record | None:
    try:
        return Record(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
