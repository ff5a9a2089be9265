"""Limits on what an image may cost in pixels, scans and memory, checked before decoding."""

from __future__ import annotations

from PIL import ImageFile

from ..errors import BadImage, Reason
from . import jpeg as jpeg_file
from .memory import memory_left

# Enough for a 64-megapixel phone camera (9248 x 6936). Checked in the header, so that a decompression bomb is
# never decoded.
MAX_PIXELS = 2**26
# Pillow has a cost per row: a long strip takes far more time and memory than a square of as many pixels.
MAX_SIDE = 2**15
# A progressive JPEG is decoded in scans: ten are usual, thousands would keep a worker busy forever.
MAX_SCANS = 100

# Upper bounds in bytes per pixel while Pillow reads an image. Measured: 18.2 for WebP, 13.6 for all others,
# and 8.1 for a progressive JPEG in four colours, whose coefficients are kept in full at any decoding scale.
WEBP, OTHERS, PROGRESSIVE = 19, 14, 9
# Below this size the memory check is skipped: it takes a hundredth of decoding a photo at an eighth.
LITTLE = 2**24
# Bytes kept free, for the decoder's own tables and for Java and the other workers, which continue to run.
RESERVE = 2**26
MEGA = 10**6


def refuse_costly(image: ImageFile.ImageFile, body: bytes) -> None:
    """Raise BadImage if an image has too many pixels or scans."""
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise too_large(f"{image.width} x {image.height} pixels")
    if image.format in jpeg_file.FORMATS and (scans := jpeg_file.scans(image, body)) > MAX_SCANS:
        raise BadImage(
            f"the JPEG image has {scans} scans",
            f"send one with at most {MAX_SCANS}",
            Reason.TOO_MANY_SCANS,
        )


def memory_to_read(image: ImageFile.ImageFile, whole: tuple[int, int]) -> int:
    """Return the bytes that Pillow may need to read an image of `whole` pixels.

    The image's own size is the one at which it is decoded: an eighth for some JPEGs.
    """
    decoded = image.width * image.height * (WEBP if image.format == "WEBP" else OTHERS)
    return decoded + (PROGRESSIVE * whole[0] * whole[1] if "progressive" in image.info else 0)


def refuse_beyond_memory(size: tuple[int, int], needed: int) -> None:
    """Raise BadImage if an image needs more bytes than are free: the kernel would kill the process."""
    if needed <= LITTLE:
        return
    left = max(0.0, memory_left() - RESERVE)
    if needed > left:
        most = int(size[0] * size[1] * max(LITTLE, left) / needed)
        raise BadImage(
            f"the image is too large ({size[0]} x {size[1]} pixels): reading it may take "
            f"{needed // MEGA} MB of memory, but only {int(left) // MEGA} MB are free",
            f"send at most {most:,} pixels, or give the server more memory",
            Reason.TOO_LARGE,
        )


def too_large(size: str) -> BadImage:
    """Return the error for an image beyond the limits, which no server here reads."""
    return BadImage(
        f"the image is too large ({size})",
        f"send at most {MAX_PIXELS:,} pixels, {MAX_SIDE:,} per side",
        Reason.TOO_LARGE,
    )
