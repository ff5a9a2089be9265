"""Open a zip only after checking the sizes in its list of members against the size of the file.

Members may overlap, so 8 MB can list gigabytes, and compressed members may be a zip bomb.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

CHUNK = 2**20  # bytes read at once
# Bytes of the list of members, which zipfile reads at once: about ten thousand members.
MOST_LISTED = 2**20
# Bytes of a member that is parsed as a whole. Parsed JSON takes thirty times as much memory.
MOST_RECORD = 2**23
LOCAL_HEADER = 30  # bytes before each member, besides its name
# torch-model-archiver deflates its archives, and deflate turns up to 1,032 zeros into 1 byte. Weights shrink
# by a tenth, code by three quarters: this is far above either, and a bomb of 8 MB stays below 400 MB.
MOST_DEFLATED = 32
UNREADABLE = 0x1 | 0x20 | 0x40  # flags of members that are encrypted or patches of others
SMALL = 2**27  # bytes that any archive may unpack to


class _Listed(io.BufferedReader):
    """A file that refuses to read a large list of members, which zipfile reads at once."""

    most: int | None = MOST_LISTED

    def read(self, size: int | None = -1, /) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            raise zipfile.BadZipFile(f"its list of members has {size:,} bytes; the limit is {self.most:,}")
        return super().read(size)


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip, unless it unpacks to too much for its file size. Raises BadZipFile, OSError."""
    with _Listed(io.FileIO(path)) as file, zipfile.ZipFile(file) as opened:
        file.most = None
        _check_sizes(opened.infolist(), os.fstat(file.fileno()).st_size)
        yield opened


def read_record(opened: zipfile.ZipFile, name: str) -> bytes:
    """Return a member to be parsed. Raises BadZipFile if it is too large, KeyError if it is missing."""
    size = opened.getinfo(name).file_size
    if size > MOST_RECORD:
        raise zipfile.BadZipFile(f"its member {name!r} has {size:,} bytes; the limit is {MOST_RECORD:,}")
    return opened.read(name)


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's content in chunks."""
    while chunk := file.read(CHUNK):
        yield chunk


def _check_sizes(infos: Iterable[zipfile.ZipInfo], size: int) -> None:
    held = unpacked = 0
    for info in infos:
        held += LOCAL_HEADER + len(info.orig_filename) + info.compress_size
        unpacked += info.file_size
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"its member {info.filename!r} has an unsupported compression")
        if info.flag_bits & UNREADABLE:
            raise zipfile.BadZipFile(f"its member {info.filename!r} is encrypted or patched")
        if not 0 <= info.header_offset < size:
            raise zipfile.BadZipFile(f"its member {info.filename!r} is not in the file")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise zipfile.BadZipFile(f"its member {info.filename!r} has two sizes")
    if held > size:
        raise zipfile.BadZipFile(f"its members take {held:,} bytes, but the file has {size:,}: they overlap")
    if unpacked > max(SMALL, MOST_DEFLATED * size):
        raise zipfile.BadZipFile(f"it unpacks to {unpacked:,} bytes from {size:,}, more than any model")
