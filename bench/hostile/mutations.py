"""Image files with seeded random damage: file N of a format is the same in every run."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

from PIL import Image

from bench.load.images import DIGITS, VARIANTS, encoded, enlarged, opened, scan_by_scan, tinted

# The encodings of pixels in TIFF files, each with its own decoder.
TIFF_KINDS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg")
# The extremes of 1, 2 and 4 bytes, signed and unsigned.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
FIELD = 24  # bytes at the start of a part that contain its lengths, sizes and counts
INSERTED = 4096  # bytes at most
AGAIN = (1, 2, 10, 200)  # how often a part is repeated
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RIFF_HEAD = 12  # "RIFF", the file's length, "WEBP"
# A JPEG's markers except those within compressed data, and a GIF's blocks. Such bytes occur elsewhere, too:
# a wrong cut is as good as a right one.
JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
GIF_BLOCK = re.compile(rb"\x21[\xf9\xfe\xff]|\x2c\x00")
# The two headers of a BMP, field by field.
BMP_FIELDS = (2, 6, 10, 14, 18, 22, 26, 28, 30, 34, 38, 42, 46, 50, 54)
TIFF_ENTRY = 12

Files = Mapping[str, list[bytes]]
Damage = Callable[[bytes, bytes, random.Random], bytes]


def originals() -> dict[str, list[bytes]]:
    """Return good files by format: all variants of each, and some more."""
    digit = opened(DIGITS["5"])
    big, color = enlarged(digit), tinted(enlarged(digit))
    made = {name: make(digit) for name, make in VARIANTS.items()}

    def variants(kind: str, *but: str) -> list[bytes]:
        return [body for name, body in made.items() if name.startswith(kind) and name not in but]

    return {
        "PNG": variants("png"),
        "JPEG": [*variants("jpeg", "jpeg-progressive"), encoded(color, "JPEG", restart_marker_blocks=4)],
        "JPEG, progressive": [encoded(image, "JPEG", progressive=True) for image in (big, color)],
        "JPEG, scan by scan": [scan_by_scan(digit), scan_by_scan(big)],
        "MPO": variants("mpo"),
        "WebP": [*variants("webp"), encoded(color.convert("RGBA"), "WEBP", lossless=True)],
        "BMP": [encoded(digit.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")],
        "GIF": [*variants("gif"), encoded(color.quantize(), "GIF", transparency=0)],
        "TIFF": [*variants("tiff"), *(encoded(color, "TIFF", compression=kind) for kind in TIFF_KINDS),
                 encoded(big.convert("1", dither=Image.Dither.NONE), "TIFF", compression="group4")],
    }  # fmt: skip


def mutation(files: Files, kind: str, number: int, seed: int) -> bytes:
    """Return a file of this format with one to three faults."""
    chance = random.Random(f"{seed} {kind} {number}")  # noqa: S311 damage, not a secret
    body = chance.choice(files[kind])
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        other = chance.choice(files[chance.choice((kind, kind, *files))])
        body = chance.choice(DAMAGES)(body, other, chance)
    return with_right_checksums(body) if chance.random() < 0.7 else body  # noqa: PLR2004 most, not all


def _bits_flipped(body: bytes, _: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(body)
    for _flip in range(chance.choice((1, 2, 8, 64)) if body else 0):
        damaged[_place(body, chance)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _bytes_changed(body: bytes, _: bytes, chance: random.Random) -> bytes:
    place = _place(body, chance)
    count = chance.choice((1, 2, 4, 64))
    return body[:place] + chance.randbytes(count) + body[place + count :]


def _cut_short(body: bytes, _: bytes, chance: random.Random) -> bytes:
    return body[: _place(body, chance)]


def _cut_out(body: bytes, _: bytes, chance: random.Random) -> bytes:
    begin, end = sorted((_place(body, chance), _place(body, chance)))
    return body[:begin] + body[end:]


def _inserted(body: bytes, _: bytes, chance: random.Random) -> bytes:
    place, count = _place(body, chance), chance.randrange(1, INSERTED)
    filling = chance.choice((chance.randbytes(count), bytes(count), b"\xff" * count))
    return body[:place] + filling + body[place:]


def _number_at_the_end_of_its_range(body: bytes, _: bytes, chance: random.Random) -> bytes:
    """Set what may be a length, a size or a count, at the start of a part, to an extreme."""
    pieces = parts(body)
    if not pieces:
        return body
    index = chance.randrange(len(pieces))
    piece = pieces[index]
    place = chance.randrange(min(len(piece), FIELD))
    value, order = chance.choice(EXTREMES), chance.choice("<>")
    number = chance.choice([struct.pack(f"{order}{kind}", value & mask) for kind, mask in _WIDTHS])
    pieces[index] = piece[:place] + number + piece[place + len(number) :]
    return b"".join(pieces)


def _part_again(body: bytes, _: bytes, chance: random.Random) -> bytes:
    pieces = parts(body)
    index = chance.randrange(len(pieces)) if pieces else 0
    return b"".join([*pieces[:index], *pieces[index : index + 1] * chance.choice(AGAIN), *pieces[index:]])


def _part_lost(body: bytes, _: bytes, chance: random.Random) -> bytes:
    pieces = parts(body)
    index = chance.randrange(len(pieces)) if pieces else 0
    return b"".join([*pieces[:index], *pieces[index + 1 :]])


def _parts_in_another_order(body: bytes, _: bytes, chance: random.Random) -> bytes:
    head, *pieces = parts(body) or [b""]
    chance.shuffle(pieces)
    return b"".join([head, *pieces])


def _part_of_another(body: bytes, other: bytes, chance: random.Random) -> bytes:
    pieces = parts(body)
    foreign = parts(other) or [b""]
    pieces.insert(chance.randrange(len(pieces) + 1), chance.choice(foreign))
    return b"".join(pieces)


def _spliced(body: bytes, other: bytes, chance: random.Random) -> bytes:
    return body[: _place(body, chance)] + other[_place(other, chance) :]


def _head_of_another(body: bytes, other: bytes, _: random.Random) -> bytes:
    """Put another file's first parts before this one's body: sizes and colours that do not fit it."""
    half = len(parts(other)) // 2
    return b"".join([*parts(other)[: half or 1], *parts(body)[len(parts(body)) // 2 :]])


def _place(body: bytes, chance: random.Random) -> int:
    return chance.randrange(len(body)) if body else 0


def parts(body: bytes) -> list[bytes]:
    """Split an image file where its chunks, segments, blocks, entries or fields begin.

    Joined, the parts are the file again. Anything that is not an image is one part.
    """
    places = sorted({0, len(body), *(place for place in _boundaries(body) if 0 < place < len(body))})
    return [body[begin:end] for begin, end in pairwise(places)]


def with_right_checksums(body: bytes) -> bytes:
    """Return a PNG with correct checksums of its chunks, so that a decoder continues."""
    if not body.startswith(PNG_SIGNATURE):
        return body
    head, *chunks = parts(body)
    return head + b"".join(
        chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4])) if len(chunk) >= TIFF_ENTRY else chunk
        for chunk in chunks
    )


def _boundaries(body: bytes) -> Iterable[int]:  # noqa: PLR0911 a format each
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
    """Yield where chunks begin; their length is `at` bytes into them, and excludes `around` bytes."""
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


_WIDTHS = (("B", 0xFF), ("H", 0xFFFF), ("I", 0xFFFFFFFF))
DAMAGES: tuple[Damage, ...] = (
    _bits_flipped, _bytes_changed, _cut_short, _cut_out, _inserted, _number_at_the_end_of_its_range,
    _number_at_the_end_of_its_range, _part_again, _part_lost, _parts_in_another_order, _part_of_another,
    _spliced, _head_of_another,
)  # fmt: skip
