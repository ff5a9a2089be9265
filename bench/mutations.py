"""Picture files spoilt by a seeded chance: number so-and-so of a format is the same file in every run."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from pictures import VARIANTS, encoded, enlarged, opened, scan_by_scan, tinted
from seams import parts, with_right_checksums

DIGIT = Path(__file__).parents[1] / "tests" / "images" / "5.png"
# What TIFF files hold their pixels in, each by a decoder of its own.
TIFF_KINDS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg")
# Values at the ends of what 1, 2 and 4 bytes hold, with and without a sign.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
FIELD = 24       # bytes at the start of a part among which its lengths, sizes and counts stand
INSERTED = 4096  # bytes at most
AGAIN = (1, 2, 10, 200)  # how often a part is repeated

Files = Mapping[str, list[bytes]]
Damage = Callable[[bytes, bytes, random.Random], bytes]


def originals() -> dict[str, list[bytes]]:
    """Return good files by their formats: every kind of each that the tests know, and some more."""
    digit = opened(DIGIT.read_bytes())
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
    chance = random.Random(f"{seed} {kind} {number}")  # noqa: S311 damage, no secret
    body = chance.choice(files[kind])
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        other = chance.choice(files[chance.choice((kind, kind, *files))])
        body = chance.choice(DAMAGES)(body, other, chance)
    return with_right_checksums(body) if chance.random() < 0.7 else body  # noqa: PLR2004 most, not all


def _bits_flipped(body: bytes, _: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(body)
    for _flip in range(chance.choice((1, 2, 8, 64)) if body else 0):
        spoilt[_place(body, chance)] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


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


_WIDTHS = (("B", 0xFF), ("H", 0xFFFF), ("I", 0xFFFFFFFF))
DAMAGES: tuple[Damage, ...] = (
    _bits_flipped, _bytes_changed, _cut_short, _cut_out, _inserted, _number_at_the_end_of_its_range,
    _number_at_the_end_of_its_range, _part_again, _part_lost, _parts_in_another_order, _part_of_another,
    _spliced, _head_of_another,
)  # fmt: skip
