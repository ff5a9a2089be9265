"""Decode the usual kind of PNG with kornia-rs, in a quarter of Pillow's time.

Only plain files are read here: 8 bits, grey, RGB or RGBA, not interlaced, and with nothing else that changes
the pixels. Pillow reads or refuses all others, damaged ones included, and every file if kornia-rs is not
installed. The values are the same either way: PNG is lossless.

Texts and color profiles, which do not change the pixels, are removed before decoding: compressed ones may
unpack to a large size, which Pillow refuses above 1 MiB, and valid files have some.
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
except ImportError:  # an archive also runs with only TorchServe's own packages
    decode_image_png_u8 = None

# In pixels: no image with sides up to this exceeds the limit in limits.py.
LARGEST_SIDE = 2**13
# Signature, and the first chunk: its length and name, width, height, bits, colour, three methods, checksum.
HEAD = struct.Struct(">8sI4sIIBBBBBI")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
BITS = 8
PLAIN_METHODS = (0, 0, 0)  # the only compression, the only filters, no interlace
# kornia-rs's name for each colour type of the header, and Pillow's for each number of channels.
COLORS = {0: "mono", 2: "rgb", 6: "rgba"}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Upper bounds in bytes per pixel while a file is read: measured 1, 8 and 9; for grey and an RGB model, 5.
BYTES = {0: 6, 2: 9, 6: 10}
CHUNK = struct.Struct(">I4s")
CHECKSUM = struct.Struct(">I")
DATA, PROFILE, END = b"IDAT", b"iCCP", b"IEND"
TEXT, PACKED_TEXT, INTERNATIONAL_TEXT = b"tEXt", b"zTXt", b"iTXt"
TEXTS = frozenset({TEXT, PACKED_TEXT, INTERNATIONAL_TEXT})
# Other chunks that do not change Pillow's pixels: color spaces, resolution, dates.
IGNORED = frozenset({DATA, b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"tIME", b"bKGD"})
# In a text's keyword: the text may hold an orientation.
ORIENTING = (b"exif", b"xmp")
KEYWORD = 79  # bytes, at most
# Bytes that all such texts of a file may unpack to; Pillow unpacks no more for a single one.
UNPACKED = 2**20
# What the largest request has in chunks of 512 bytes; decoders process more of them faster than Python.
MOST_CHUNKS = 2**16

OPAQUE = 255


def decode(body: bytes) -> np.ndarray | None:
    """Return a plain PNG's pixels, uint8 (H, W, C) with 1, 3 or 4 channels; None for what Pillow reads.

    Raises BadImage if there is not enough memory.
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
    with suppress(Exception):  # kornia-rs raises no narrower type; Pillow then reports the error
        return decode_image_png_u8(bytes(plain), (height, width), COLORS[color])  # type: ignore[no-any-return]
    return None


def without_metadata(body: bytes) -> bytes:
    """Return a PNG file without texts and color profiles; other files, and those without any, unchanged.

    Texts that may hold an orientation stay, as long as they unpack to little; so do damaged ones, which the
    decoder refuses.
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
            room = 0  # unpack nothing more
        checksum = zlib.crc32(body[data - len(kind) : end])
        if body[end : end + CHECKSUM.size] == CHECKSUM.pack(checksum):
            kept.append(body[start : data - CHUNK.size])
            start = end + CHECKSUM.size
    return b"".join([*kept, body[start:]]) if kept else body


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return decoded pixels as a Pillow image, which has no transparency if they are all opaque."""
    height, width, channels = pixels.shape
    mode = MODES[channels]
    if mode == "RGBA" and _is_opaque(pixels):
        mode = "RGBX"
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def _plain(body: bytes) -> bytes | None:
    """Return a file without its metadata; None if another chunk may change what is seen."""
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
    """Yield the kind of at most MOST_CHUNKS chunks, and where their data begin and end."""
    last = len(body) - CHUNK.size
    for _ in range(MOST_CHUNKS):
        if place > last:
            break
        length, kind = CHUNK.unpack_from(body, place)
        data = place + CHUNK.size
        place = data + length + CHECKSUM.size
        yield kind, data, data + length


def _unpacked(kind: bytes, text: bytes, most: int) -> int:
    """Return the size that a compressed text unpacks to, or more than `most`; 0 for another text."""
    _, _, rest = text.partition(b"\0")
    if kind == PACKED_TEXT:
        packed = rest[1:]  # without the method
    elif kind == INTERNATIONAL_TEXT and rest[:1] == b"\1":
        packed = rest[2:].split(b"\0", 2)[-1]  # without the method, the language and the keyword in it
    else:
        return 0
    with suppress(zlib.error):  # Pillow reads such a text as empty
        return len(zlib.decompressobj().decompress(packed, most + 1))
    return 0


def _may_orient(text: bytes) -> bool:
    keyword = text.partition(b"\0")[0].lower()
    return any(name in keyword for name in ORIENTING)


def _is_opaque(pixels: np.ndarray) -> bool:
    """Return whether every alpha of RGBA pixels is 255; with four bytes at once, in a tenth of the time."""
    common = int(np.bitwise_and.reduce(pixels.view("<u4"), axis=None))
    return common >> 24 == OPAQUE
