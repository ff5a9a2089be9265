"""Where a picture file can be taken apart: its chunks, segments, blocks, directory entries, fields."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from itertools import pairwise

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RIFF_HEAD = 12  # "RIFF", the file's length, "WEBP"
# A JPEG's markers but for the ones within compressed data, a GIF's blocks. Such bytes stand elsewhere, too:
# a wrong cut is as good as a right one.
JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
GIF_BLOCK = re.compile(rb"\x21[\xf9\xfe\xff]|\x2c\x00")
# The two headers of a BMP, field by field.
BMP_FIELDS = (2, 6, 10, 14, 18, 22, 26, 28, 30, 34, 38, 42, 46, 50, 54)
TIFF_ENTRY = 12


def parts(body: bytes) -> list[bytes]:
    """Take a file apart; joined again, the parts are the file. Of what is no picture there is one part."""
    places = sorted({0, len(body), *(place for place in _seams(body) if 0 < place < len(body))})
    return [body[begin:end] for begin, end in pairwise(places)]


def with_right_checksums(body: bytes) -> bytes:
    """Return a PNG whose chunks' checksums fit again, so that a decoder reads on."""
    if not body.startswith(PNG_SIGNATURE):
        return body
    head, *chunks = parts(body)
    return head + b"".join(
        chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4])) if len(chunk) >= TIFF_ENTRY else chunk
        for chunk in chunks
    )


def _seams(body: bytes) -> Iterable[int]:  # noqa: PLR0911 a format each
    if body.startswith(PNG_SIGNATURE):
        return _chunks(body, len(PNG_SIGNATURE), ">I", 0, 12)
    if body.startswith(b"RIFF"):
        return _chunks(body, RIFF_HEAD, "<I", 4, 8)
    if body.startswith(b"\xff\xd8"):
        return (found.start() for found in JPEG_MARKER.finditer(body))
    if body.startswith(b"GIF8"):
        return (13, *(found.start() for found in GIF_BLOCK.finditer(body)))
    if body.startswith(b"BM"):
        return BMP_FIELDS
    if body.startswith((b"II*\0", b"MM\0*")):
        return _tiff(body)
    return ()


def _chunks(body: bytes, first: int, number: str, at: int, around: int) -> Iterable[int]:
    """Yield where chunks begin, whose length stands `at` bytes into them, with `around` bytes around it."""
    place = first
    while place + around <= len(body):
        yield place
        (length,) = struct.unpack_from(number, body, place + at)
        place += around + length + (length % 2 if number == "<I" else 0)  # RIFF pads to even lengths
    yield place


def _tiff(body: bytes) -> Iterable[int]:
    order = "<" if body.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(f"{order}I", body.ljust(8, b"\0"), 4)
    yield directory
    if directory + 2 <= len(body):
        (entries,) = struct.unpack_from(f"{order}H", body, directory)
        yield from range(directory + 2, directory + 3 + TIFF_ENTRY * entries, TIFF_ENTRY)
