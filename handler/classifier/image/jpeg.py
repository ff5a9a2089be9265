"""The cost of decoding a JPEG: known before a pixel is decoded, and reduced for photos."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile

# MPO is what many phones write as .jpg: several JPEGs in one file.
FORMATS = ("JPEG", "MPO")
# The smallest scale at which a JPEG can be decoded, and how many times the contract's size has to remain:
# with less, the answers would begin to depend on the scale; docs/performance.md has the measurement.
EIGHTH, PLENTY = 8, 8
SCAN_MARKER = b"\xff\xda"
# A scan's header after its marker: its own length in two bytes, the number of components in one, two bytes
# per component, and three more.
HEADER, PER_COMPONENT = 6, 2


def scans(image: ImageFile.ImageFile, body: bytes) -> int:
    """Count the scans that the decoder goes through, for an image that Pillow has just opened.

    A baseline JPEG whose first scan holds all components has no other: the decoder refuses a second one. In
    all other files the markers are counted. In compressed data 0xff is always followed by 0, so these two
    bytes start a scan; NumPy finds them in a fifth of the time that bytes.count takes.
    """
    if _is_in_one_scan(image, body):
        return 1
    first, second = SCAN_MARKER
    data = np.frombuffer(body, np.uint8)
    return int(np.count_nonzero((data[:-1] == first) & (data[1:] == second)))


def decode_at_once(image: ImageFile.ImageFile, body: bytes) -> None:
    """Give the decoder the whole file; with Pillow's blocks of 64 KB it starts over after each."""
    image.decodermaxblock = len(body)


def reduce(image: Image.Image, mode: str, size: int) -> None:
    """Have a photo decoded at an eighth of its size if that leaves plenty of pixels for `size`.

    The decoder then averages blocks of eight by eight pixels instead of writing them out, in a fraction of
    the time and memory. The result is within a grey level or two of the one from the whole image.
    """
    enough = PLENTY * size
    if min(image.size) >= EIGHTH * enough:
        image.draft(mode, (enough, enough))


def _is_in_one_scan(image: ImageFile.ImageFile, body: bytes) -> bool:
    """Return whether the first scan is the only one. Pillow has read up to the end of its header."""
    if image.format != "JPEG" or "progressive" in image.info or image.fp is None:
        return False
    components = len(image.getbands())
    length = HEADER + PER_COMPONENT * components
    start = image.fp.tell() - length
    header = SCAN_MARKER + length.to_bytes(2, "big") + bytes([components])
    return body[start - len(SCAN_MARKER) : start + 3] == header
