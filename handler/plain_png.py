"""The PNG file that nearly everybody sends, decoded by kornia-rs in a quarter of Pillow's time.

Only files that leave no question are read here: 8 bits, grey, RGB or RGBA, line by line, and nothing else in
them that changes what is seen. Pillow reads or refuses all others, damaged ones included; and all of them
where kornia-rs is not installed. The values are the same either way: PNG is lossless.
"""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
from PIL import Image

from picture_cost import refuse_beyond_memory

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # an archive also runs where nothing but TorchServe's own packages is
    decode_image_png_u8 = None

# A side of this many pixels and no more: with it no picture is larger than handler/picture_cost.py allows.
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
CHECKSUM = 4  # bytes
DATA, TEXT, END = b"IDAT", b"tEXt", b"IEND"
# Chunks of which Pillow's pixels know nothing: colour profiles, resolution, dates.
IGNORED = frozenset({DATA, b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs", b"tIME", b"bKGD"})
# In a text's keyword: it may say which side is up.
ORIENTING = (b"exif", b"xmp")
KEYWORD = 79  # bytes, at most

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
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE and _is_plain(body)):
        return None
    refuse_beyond_memory((width, height), BYTES[color] * width * height)
    with suppress(Exception):  # kornia-rs raises no narrower type; Pillow then says what is wrong
        return decode_image_png_u8(bytes(body), (height, width), COLORS[color])  # type: ignore[no-any-return]
    return None


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return decoded pixels as Pillow's image; of an opaque one Pillow need not know the opacity."""
    height, width, channels = pixels.shape
    mode = MODES[channels]
    if mode == "RGBA" and _is_opaque(pixels):
        mode = "RGBX"
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def _is_plain(body: bytes) -> bool:
    """Tell whether no chunk after the header has a say in what is seen."""
    place, end = HEAD.size, len(body) - CHUNK.size
    while place <= end:
        length, kind = CHUNK.unpack_from(body, place)
        place += CHUNK.size
        if kind == END:
            return True
        if kind not in IGNORED and (kind != TEXT or _may_orient(body[place : place + KEYWORD])):
            return False
        place += length + CHECKSUM
    return False


def _may_orient(text: bytes) -> bool:
    keyword = text.partition(b"\0")[0].lower()
    return any(name in keyword for name in ORIENTING)


def _is_opaque(pixels: np.ndarray) -> bool:
    """Tell whether every opacity of RGBA pixels is 255: all four bytes at once, a tenth of the time."""
    common = int(np.bitwise_and.reduce(pixels.view("<u4"), axis=None))
    return common >> 24 == OPAQUE
