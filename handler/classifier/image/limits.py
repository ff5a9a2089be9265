"""What an image may cost, in pixels, scans and memory: known before a pixel is decoded."""

from __future__ import annotations

from PIL import ImageFile

from ..errors import BadImage, Reason
from . import jpeg as jpeg_file
from .memory import memory_left

# Enough for a 64-megapixel phone camera (9248 x 6936). Held against the header: a bomb costs no more than its
# header.
MAX_PIXELS = 2**26
# A long strip takes Pillow far more time and memory than a square of as many pixels: a row each.
MAX_SIDE = 2**15
# A progressive JPEG is drawn over and over: ten scans are usual, thousands keep a worker busy for ever.
MAX_SCANS = 100

# Bytes a pixel while Pillow reads an image, at most. Measured: 18.2 of WebP, 13.6 of all others; and 8.1 of
# a progressive JPEG in four colours, whose coefficients are kept in full at whatever scale it is decoded.
WEBP, OTHERS, PROGRESSIVE = 19, 14, 9
# Bytes for which there is room, without a look: one costs a hundredth of a photo, decoded at an eighth.
LITTLE = 2**24
# Bytes that are left over: a decoder has tables of its own, and Java and the other workers go on meanwhile.
RESERVE = 2**26
MEGA = 10**6


def refuse_costly(image: ImageFile.ImageFile, body: bytes) -> None:
    """Raise BadImage where decoding would cost more than an image is worth."""
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise too_large(f"{image.width} x {image.height} pixels")
    if image.format in jpeg_file.FORMATS and (scans := jpeg_file.scans(image, body)) > MAX_SCANS:
        raise BadImage(
            f"the JPEG image is drawn in {scans} scans",
            f"send one with at most {MAX_SCANS}",
            Reason.TOO_MANY_SCANS,
        )


def memory_to_read(image: ImageFile.ImageFile, whole: tuple[int, int]) -> int:
    """Return the bytes that Pillow may take to read an image of `whole` pixels.

    The image's own size is that at which it is decoded: of a JPEG it may be an eighth.
    """
    decoded = image.width * image.height * (WEBP if image.format == "WEBP" else OTHERS)
    return decoded + (PROGRESSIVE * whole[0] * whole[1] if "progressive" in image.info else 0)


def refuse_beyond_memory(size: tuple[int, int], wanted: int) -> None:
    """Raise BadImage where an image of this size wants more bytes than are left: the kernel would end us."""
    if wanted <= LITTLE:
        return
    left = max(0.0, memory_left() - RESERVE)
    if wanted > left:
        most = int(size[0] * size[1] * max(LITTLE, left) / wanted)
        raise BadImage(
            f"the image is too large ({size[0]} x {size[1]} pixels): reading it may take "
            f"{wanted // MEGA} MB of memory, and {int(left) // MEGA} are left",
            f"send at most {most:,} pixels, or give the server more memory",
            Reason.TOO_LARGE,
        )


def too_large(size: str) -> BadImage:
    """Return the refusal of an image that no server here reads."""
    return BadImage(
        f"the image is too large ({size})",
        f"send at most {MAX_PIXELS:,} pixels, {MAX_SIDE:,} in a side",
        Reason.TOO_LARGE,
    )
