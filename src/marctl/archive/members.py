"""Check an archive's members before it is unpacked: two readers of one zip may find different members."""

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

HIDING = "packing its members again gives a different file: it was repacked, or something is hidden in it"
REMEDY = "build it again: make archive"


def check_members(archive: Path) -> None:
    """Raise BadArchive if a member would be unpacked outside the archive's folder, or anything is hidden."""
    with reading(archive) as mar:
        if (fault := next(unsafe(mar.infolist()), None)) is not None:
            raise BadArchive(f"{archive}: {fault}; {REMEDY}")
        check_stored(archive, mar)
        if hides_something(archive, mar):
            raise BadArchive(f"{archive}: {HIDING}; {REMEDY}")


def unsafe(infos: Iterable[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield a sentence for each member that would not be unpacked where its name says, or is a link."""
    for info in infos:
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
            yield f"the member {info.filename!r} would be unpacked outside the archive's folder"
        elif str(path) != info.filename:
            yield f"the member {info.filename!r} is another name for {str(path)!r}"
        if stat.S_ISLNK(info.external_attr >> 16):
            yield f"the member {info.filename!r} is a link; an archive may contain only files"


def check_stored(archive: Path, mar: zipfile.ZipFile) -> None:
    """Raise BadArchive if a member is compressed: sealed archives are not."""
    if any(info.compress_type != zipfile.ZIP_STORED for info in mar.infolist()):
        raise BadArchive(f"{archive} was repacked, or never sealed; {REMEDY}")


def hides_something(archive: Path, mar: zipfile.ZipFile) -> bool:
    """Return whether the file contains anything besides the members that Python finds in it.

    TorchServe reads a zip from its start, Python from the list at its end. Only one member at a time is in
    memory. Raises BadArchive if the archive does not say when it was built.
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
    """The members of an archive, each read on access."""

    def __init__(self, mar: zipfile.ZipFile) -> None:
        self._mar = mar

    def __getitem__(self, name: str) -> bytes:
        return self._mar.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._mar.namelist()))

    def __len__(self) -> int:
        return len(set(self._mar.namelist()))


class _Compared(io.RawIOBase):
    """A file that compares what is written to it with another file, and stores nothing."""

    def __init__(self, other: io.BufferedReader) -> None:
        self._other = other
        self._at = 0
        # By position: zipfile writes a member's header twice, first without its checksum.
        self._different: dict[int, bool] = {}

    @property
    def differs(self) -> bool:
        """Whether anything written differs in the end, or the other file is longer."""
        return any(self._different.values()) or self._at != os.fstat(self._other.fileno()).st_size

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Compare instead of writing."""
        self._other.seek(self._at)
        self._different[self._at] = self._other.read(len(data)) != data
        self._at += len(data)
        return len(data)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position from the start, as zipfile does."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("seek")
        self._at = place
        return place

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._at

    def seekable(self) -> bool:
        """Allow zipfile to go back to a header."""
        return True

    def writable(self) -> bool:
        """Allow writing."""
        return True
