"""The PNG file that nearly everybody sends, decoded by kornia-rs in a quarter of Pillow's time.

Only files that leave no question are read here: 8 bits, grey, RGB or RGBA, line by line, and nothing else in
them that changes what is seen. Pillow reads or refuses all others, damaged ones included; and all of them
where kornia-rs is not installed. The values are the same either way: PNG is lossless.

No decoder gets texts and color profiles, of which the pixels know nothing: compressed ones may be large when
they are unpacked, which Pillow refuses above 1 MiB, and good files have some.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from PIL import Image

from .limits import refuse_beyond_memory

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # an archive also runs where nothing but TorchServe's own packages is
    decode_image_png_u8 = None

# A side of this many pixels and no more: with it no image is larger than limits.py allows.
LARGEST_SIDE = 2**13
# Signature, and the first chunk: its length and name, width, height, bits, colour, three methods, checksum.
HEAD = struct.Struct(">8sI4sIIBBBBBI")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
BITS = 8
PLAIN_METHODS = (0, 0, 0)  # the only compression, the only filters, no interlace
# By the header's number of a colour type what kornia-rs calls it; by its channels what Pillow does.
COLORS = {0: "mono", 2: "rgb", 6: "rgba"}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Bytes a pixel while one is read, at most: measured 1, 8 and 9, of grey for a model in colour 5.
BYTES = {0: 6, 2: 9, 6: 10}
CHUNK = struct.Struct(">I4s")
CHECKSUM = struct.Struct(">I")
DATA, PROFILE, END = b"IDAT", b"iCCP", b"IEND"
TEXT, PACKED_TEXT, INTERNATIONAL_TEXT = b"tEXt", b"zTXt", b"iTXt"
TEXTS = frozenset({TEXT, PACKED_TEXT, INTERNATIONAL_TEXT})
# Other chunks of which Pillow's pixels know nothing: color spaces, resolution, dates.
IGNORED = frozenset({DATA, b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"tIME", b"bKGD"})
# In a text's keyword: it may say which side is up.
ORIENTING = (b"exif", b"xmp")
KEYWORD = 79  # bytes, at most
# Bytes that such texts may unpack to, all of one file together; Pillow unpacks no more of a single one.
UNPACKED = 2**20
# What the largest request has in pieces of 512 bytes; decoders go through more of them faster than Python.
MOST_CHUNKS = 2**16

OPAQUE = 255


def decode(body: bytes) -> np.ndarray | None:
    """Return a plain PNG's pixels, uint8 (H, W, C) of 1, 3 or 4 channels; None for what Pillow reads.

    Raises BadImage where there is not the memory for them.
    """
    if decode_image_png_u8 is None or len(body) < HEAD.size:
        return None
    signature, _, _, width, height, bits, color, *methods, _ = HEAD.unpack_from(body)
    if signature != SIGNATURE or bits != BITS or color not in COLORS or tuple(methods) != PLAIN_METHODS:
        return None
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        return None
    if (plain := _plain(body)) is None:
        return None
    refuse_beyond_memory((width, height), BYTES[color] * width * height)
    with suppress(Exception):  # kornia-rs raises no narrower type; Pillow then says what is wrong
        return decode_image_png_u8(bytes(plain), (height, width), COLORS[color])  # type: ignore[no-any-return]
    return None


def without_metadata(body: bytes) -> bytes:
    """Return a PNG file without texts and color profiles; another file, and one that has none, as it is.

    Texts that say which side is up stay, as long as they unpack to little; so do damaged ones, for the
    decoder to refuse.
    """
    if not body.startswith(SIGNATURE):
        return body
    kept, start, room = [], 0, UNPACKED
    for kind, data, end in _chunks(body, len(SIGNATURE)):
        if kind not in TEXTS and kind != PROFILE:
            continue
        if kind != PROFILE and _may_orient(body[data : data + KEYWORD]):
            if (size := _unpacked(kind, body[data:end], room)) <= room:
                room -= size
                continue
            room = 0  # nothing is unpacked any more
        checksum = zlib.crc32(body[data - len(kind) : end])
        if body[end : end + CHECKSUM.size] == CHECKSUM.pack(checksum):
            kept.append(body[start : data - CHUNK.size])
            start = end + CHECKSUM.size
    return b"".join([*kept, body[start:]]) if kept else body


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return decoded pixels as Pillow's image; of an opaque one Pillow need not know the opacity."""
    height, width, channels = pixels.shape
    mode = MODES[channels]
    if mode == "RGBA" and _is_opaque(pixels):
        mode = "RGBX"
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def _plain(body: bytes) -> bytes | None:
    """Return a file without metadata whose other chunks have no say in what is seen; None for another one."""
    has_metadata = False
    for kind, data, _ in _chunks(body, HEAD.size):
        if kind == END:
            return without_metadata(body) if has_metadata else body
        if kind == PROFILE or (kind in TEXTS and not _may_orient(body[data : data + KEYWORD])):
            has_metadata = True
        elif kind not in IGNORED:
            return None
    return None


def _chunks(body: bytes, place: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, and where its data begin and end, of MOST_CHUNKS at most."""
    last = len(body) - CHUNK.size
    for _ in range(MOST_CHUNKS):
        if place > last:
            break
        length, kind = CHUNK.unpack_from(body, place)
        data = place + CHUNK.size
        place = data + length + CHECKSUM.size
        yield kind, data, data + length


def _unpacked(kind: bytes, text: bytes, most: int) -> int:
    """Return the bytes that a compressed text unpacks to, or more than `most`; 0 for another one."""
    _, _, rest = text.partition(b"\0")
    if kind == PACKED_TEXT:
        packed = rest[1:]  # without the method
    elif kind == INTERNATIONAL_TEXT and rest[:1] == b"\1":
        packed = rest[2:].split(b"\0", 2)[-1]  # without the method, the language and the keyword in it
    else:
        return 0
    with suppress(zlib.error):  # which Pillow reads as an empty text
        return len(zlib.decompressobj().decompress(packed, most + 1))
    return 0


def _may_orient(text: bytes) -> bool:
    keyword = text.partition(b"\0")[0].lower()
    return any(name in keyword for name in ORIENTING)


def _is_opaque(pixels: np.ndarray) -> bool:
    """Return whether every opacity of RGBA pixels is 255: all four bytes at once, a tenth of the time."""
    common = int(np.bitwise_and.reduce(pixels.view("<u4"), axis=None))
    return common >> 24 == OPAQUE
