"""What an archive may hold, told before anybody unpacks it: two readers of a zip may find two things."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, cast

from classifier import canonical
from marctl.archive.bounded_zip import chunks, read_record
from marctl.archive.mar import BadArchive, reading

HIDING = "the file is not what its members make: it was packed again, or something is hidden in it"
REMEDY = "build it again: make archive"


def check_members(archive: Path) -> None:
    """Raise BadArchive where a member could lie outside of the folder that the archive is unpacked in."""
    with reading(archive) as mar:
        if (fault := next(unsafe(mar.infolist()), None)) is not None:
            raise BadArchive(f"{archive}: {fault}; {REMEDY}")
        check_stored(archive, mar)
        if hides_something(archive, mar):
            raise BadArchive(f"{archive}: {HIDING}; {REMEDY}")


def unsafe(infos: Iterable[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield a sentence for each member that would lie elsewhere than its name says, or leads elsewhere."""
    for info in infos:
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
            yield f"the member {info.filename!r} leads out of the folder it is unpacked in"
        elif str(path) != info.filename:
            yield f"the member {info.filename!r} is another name for {str(path)!r}"
        if stat.S_ISLNK(info.external_attr >> 16):
            yield f"the member {info.filename!r} is a link; an archive holds files alone"


def check_stored(archive: Path, mar: zipfile.ZipFile) -> None:
    """Raise BadArchive where a member is compressed: a sealed archive compresses nothing."""
    if any(info.compress_type != zipfile.ZIP_STORED for info in mar.infolist()):
        raise BadArchive(f"{archive} was packed again, or never sealed; {REMEDY}")


def hides_something(archive: Path, mar: zipfile.ZipFile) -> bool:
    """Return whether the file holds anything but the members that Python finds in it.

    TorchServe reads a zip from its start, and Python by the list at its end. Of the members, one at a time is
    in memory.

    Raises BadArchive where the archive does not say when it was built.
    """
    try:
        created = int(json.loads(read_record(mar, canonical.PROVENANCE))["created"])
        with archive.open("rb") as file, _Compared(file) as rebuilt:
            canonical.write(_Members(mar), created, cast("IO[bytes]", rebuilt))
            return rebuilt.differs
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, struct.error) as error:
        raise BadArchive(f"{archive} does not say when it was built; {REMEDY}") from error


def sha256(mar: zipfile.ZipFile, name: str) -> str:
    """Return the SHA-256 of a member, in hexadecimal digits."""
    digest = hashlib.sha256()
    with mar.open(name) as member:
        for chunk in chunks(member):
            digest.update(chunk)
    return digest.hexdigest()


class _Members(Mapping[str, bytes]):
    """The members of an archive, each read when it is asked for."""

    def __init__(self, mar: zipfile.ZipFile) -> None:
        self._mar = mar

    def __getitem__(self, name: str) -> bytes:
        return self._mar.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._mar.namelist()))

    def __len__(self) -> int:
        return len(set(self._mar.namelist()))


class _Compared(io.RawIOBase):
    """A file that keeps nothing of what is written to it, but whether it is another file's content."""

    def __init__(self, other: io.BufferedReader) -> None:
        self._other = other
        self._at = 0
        # By their places: zipfile writes a member's header twice, first without its checksum.
        self._different: dict[int, bool] = {}

    @property
    def differs(self) -> bool:
        """Whether any of what was written last is different, or the other file goes on."""
        return any(self._different.values()) or self._at != os.fstat(self._other.fileno()).st_size

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Compare instead of writing."""
        self._other.seek(self._at)
        self._different[self._at] = self._other.read(len(data)) != data
        self._at += len(data)
        return len(data)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place from the start, as zipfile does."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("seek")
        self._at = place
        return place

    def tell(self) -> int:
        """Return where the next byte would go."""
        return self._at

    def seekable(self) -> bool:
        """Say that zipfile may go back to a header."""
        return True

    def writable(self) -> bool:
        """Say that it may be written to."""
        return True
