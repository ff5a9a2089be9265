"""Image files made from real digits in other colours, sizes and encodings, and bad files."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

from bench.load.images import encoded, enlarged, opened, png_file, scan_by_scan


def png_of(width: int, height: int, lines: int) -> bytes:
    """Return a 1-bit PNG whose header says width x height and that holds the given number of lines."""
    pixels = zlib.compress(bytes((1 + -(-width // 8)) * lines), 9)
    return png_file([(b"IHDR", png_header(width, height, bits=1)), (b"IDAT", pixels), (b"IEND", b"")])


def png_header(width: int, height: int, bits: int = 8, color: int = 0) -> bytes:
    """Return the data of a PNG's IHDR chunk."""
    return struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)


def without_palette(good: bytes) -> bytes:
    """Return a PNG whose header promises a palette that is missing."""
    header = good[12:25] + b"\x03" + good[26:29]
    return good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]


def drawn_again_and_again(image: Image.Image, times: int) -> bytes:
    """Return a progressive JPEG that repeats its last scan many times."""
    body = encoded(image, "JPEG", progressive=True)
    scan = body[body.rindex(b"\xff\xda") : -2]
    return body[:-2] + scan * times + body[-2:]


def bad_images(good: bytes) -> dict[str, tuple[bytes, str]]:
    """Return files that are refused, each with the start of its error message; good is a PNG."""
    image = enlarged(opened(good)).convert("RGB")
    jpeg = encoded(image, "JPEG")
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    return {
        "empty": (b"", "the request has no content; send a whole PNG"),
        "text": (b"hello", "cannot read 5 bytes starting b'hell' as an image; send a whole PNG"),
        "svg": (b"<svg/>", "cannot read 6 bytes starting b'<svg' as an image"),
        "pdf": (b"%PDF-1.7\n", "cannot read 9 bytes starting b'%PDF' as an image"),
        "eps": (encoded(image, "EPS"), "cannot read"),
        "signature-alone": (good[:8], "cannot read 8 bytes starting"),
        "truncated-header": (good[:30], "cannot read 30 bytes starting b'\\x89PNG'"),
        "truncated-png": (good[: len(good) // 2], "the PNG image of 28 x 28 pixels in"),
        "truncated-jpeg": (jpeg[: len(jpeg) // 2], "the JPEG image of 250 x 250 pixels in"),
        "truncated-webp": (encoded(image, "WEBP")[:500], "cannot read 500 bytes starting b'RIFF'"),
        "truncated-bmp": (encoded(image, "BMP")[:5000], "the BMP image of 250 x 250 pixels in"),
        "truncated-gif": (encoded(image, "GIF")[:2000], "the GIF image of 250 x 250 pixels in"),
        "truncated-tiff": (encoded(image, "TIFF")[:5000], "the TIFF image of 250 x 250 pixels in"),
        "palette-missing": (without_palette(good), "the PNG image of 28 x 28 pixels in"),
        "thousand-scans": (drawn_again_and_again(image, 1000), "the JPEG image has 10"),
        "scan-by-scan": (scan_by_scan(image.convert("L"), 100), "the JPEG image has 300 scans"),
        "long-strip": (png_of(2**16, 2, lines=2), "the image is too large (65536 x 2 pixels)"),
        "flipped-byte": (bytes(flipped), "the PNG image of 28 x 28 pixels in"),
        "above-the-cap": (
            png_of(2**13 + 1, 2**13, lines=1),
            "the image is too large (8193 x 8192 pixels); send at most 67,108,864 pixels",
        ),
        "bomb": (png_of(60_000, 60_000, lines=60_000 // 10), "the image is too large ("),
    }


def on_sheet(digit: np.ndarray, sheet: tuple[int, int], side: int, place: tuple[float, float]) -> Image.Image:
    """Draw a digit, enlarged to side pixels, on a black sheet at a place from 0 to 1."""
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    image = Image.new("L", sheet)
    left, top = (round((length - side) * share) for length, share in zip(sheet, place, strict=True))
    image.paste(large, (left, top))
    return image
