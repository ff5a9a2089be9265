"""Picture files made from the real digits: other colours, sizes, encodings; and files that are bad."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

EXIF_ORIENTATION = 0x0112
EXIF_TURNED = 6  # the camera was held upright: shown a quarter turn clockwise
BIG = 250
SCAN_HEADER = b"\xff\xda\x00\x08\x01"  # of one component


def opened(body: bytes) -> Image.Image:
    """Open a picture file."""
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file of the given format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def enlarged(image: Image.Image) -> Image.Image:
    """Return the image in 250 x 250."""
    return image.resize((BIG, BIG), Image.Resampling.BICUBIC)


def grey_alpha(image: Image.Image) -> Image.Image:
    """Return an opaque picture with an alpha channel."""
    return Image.merge("LA", [image, Image.new("L", image.size, 255)])


def tinted(image: Image.Image) -> Image.Image:
    """Return the white ink in yellow, as RGB."""
    return Image.merge("RGB", [image, image, image.point(lambda level: level // 3)])


def chalk(image: Image.Image) -> Image.Image:
    """Return white ink on nothing: all that is not ink is transparent."""
    return Image.merge("LA", [Image.new("L", image.size, 255), image])


def sixteen_bits(image: Image.Image) -> Image.Image:
    """Return the same grey levels in 16 bits: 255 becomes 65535."""
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


def turned_by_exif(image: Image.Image) -> bytes:
    """Return a JPEG that lies on its side and says so in its EXIF block."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = EXIF_TURNED
    return encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def animated(image: Image.Image, kind: str) -> bytes:
    """Return two frames, the second of them empty."""
    return encoded(image, kind, save_all=True, append_images=[Image.new(image.mode, image.size)])


# Ways to write the same digit down; each still shows white ink on black to whoever looks at it.
VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    "png": lambda i: encoded(i, "PNG"),
    "png-250": lambda i: encoded(enlarged(i), "PNG"),
    "png-rgb": lambda i: encoded(tinted(enlarged(i)), "PNG"),
    "png-rgba": lambda i: encoded(enlarged(i).convert("RGBA"), "PNG"),
    "png-grey-alpha": lambda i: encoded(grey_alpha(i), "PNG"),
    "png-chalk-on-nothing": lambda i: encoded(chalk(enlarged(i)), "PNG"),
    "png-palette": lambda i: encoded(tinted(i).convert("P"), "PNG"),
    "png-16-bit": lambda i: encoded(sixteen_bits(i), "PNG"),
    "png-1-bit": lambda i: encoded(enlarged(i).convert("1", dither=Image.Dither.NONE), "PNG"),
    "jpeg": lambda i: encoded(enlarged(i), "JPEG"),
    "jpeg-progressive": lambda i: encoded(enlarged(i).convert("RGB"), "JPEG", progressive=True),
    "jpeg-cmyk": lambda i: encoded(enlarged(i).convert("CMYK"), "JPEG"),
    "jpeg-turned-by-exif": lambda i: turned_by_exif(enlarged(i)),
    "mpo": lambda i: animated(enlarged(i).convert("RGB"), "MPO"),
    "webp": lambda i: encoded(enlarged(i).convert("RGB"), "WEBP"),
    "webp-animated": lambda i: animated(enlarged(i).convert("RGB"), "WEBP"),
    "bmp": lambda i: encoded(i, "BMP"),
    "gif": lambda i: encoded(i, "GIF"),
    "gif-animated": lambda i: animated(i, "GIF"),
    "tiff": lambda i: encoded(i, "TIFF"),
    "tiff-lzw": lambda i: encoded(tinted(i), "TIFF", compression="tiff_lzw"),
    "tiff-16-bit": lambda i: encoded(sixteen_bits(i), "TIFF"),
    "tiff-float": lambda i: encoded(Image.fromarray(np.asarray(i, dtype=np.float32) / 255), "TIFF"),
    "tiff-pages": lambda i: animated(i, "TIFF"),
}


def png_of(width: int, height: int, lines: int) -> bytes:
    """Return a PNG that says width x height, one bit a pixel, and holds the given number of lines."""
    pixels = zlib.compress(bytes((1 + -(-width // 8)) * lines), 9)
    return png_file([(b"IHDR", png_header(width, height, bits=1)), (b"IDAT", pixels), (b"IEND", b"")])


def png_header(width: int, height: int, bits: int = 8, color: int = 0) -> bytes:
    """Return the data of a PNG's first chunk."""
    return struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)


def png_file(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG of these chunks, names and data, with right checksums."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def without_palette(good: bytes) -> bytes:
    """Return a PNG that says its pixels are colours of a palette, and has none."""
    header = good[12:25] + b"\x03" + good[26:29]
    return good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]


def drawn_again_and_again(image: Image.Image, times: int) -> bytes:
    """Return a progressive JPEG whose last scan stands in it many times."""
    body = encoded(image, "JPEG", progressive=True)
    scan = body[body.rindex(b"\xff\xda") : -2]
    return body[:-2] + scan * times + body[-2:]


def scan_by_scan(grey: Image.Image, times: int = 1) -> bytes:
    """Return a baseline colour JPEG of a grey picture with a scan for each component, so often."""
    one = encoded(grey, "JPEG")
    frame, scan = one.index(b"\xff\xc0"), one.index(SCAN_HEADER)
    frame_end = frame + 2 + int.from_bytes(one[frame + 2 : frame + 4], "big")
    size = one[frame + 5 : frame + 9]
    components = b"".join(bytes([name, 0x11, 0]) for name in (1, 2, 3))
    three = b"\xff\xc0\x00\x11\x08" + size + b"\x03" + components
    data = one[scan + len(SCAN_HEADER) + 5 : -2]
    scans = b"".join(SCAN_HEADER + bytes([name, 0, 0, 63, 0]) + data for name in (1, 2, 3))
    return one[:frame] + three + one[frame_end:scan] + scans * times + one[-2:]


def bad_pictures(good: bytes) -> dict[str, tuple[bytes, str]]:
    """Return files that are refused, each with the start of its sentence; good is a PNG."""
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
        "truncated-png": (good[: len(good) // 2], "the PNG picture of 28 x 28 pixels in"),
        "truncated-jpeg": (jpeg[: len(jpeg) // 2], "the JPEG picture of 250 x 250 pixels in"),
        "truncated-webp": (encoded(image, "WEBP")[:500], "cannot read 500 bytes starting b'RIFF'"),
        "truncated-bmp": (encoded(image, "BMP")[:5000], "the BMP picture of 250 x 250 pixels in"),
        "truncated-gif": (encoded(image, "GIF")[:2000], "the GIF picture of 250 x 250 pixels in"),
        "truncated-tiff": (encoded(image, "TIFF")[:5000], "the TIFF picture of 250 x 250 pixels in"),
        "palette-missing": (without_palette(good), "the PNG picture of 28 x 28 pixels in"),
        "thousand-scans": (drawn_again_and_again(image, 1000), "the JPEG picture is drawn in 10"),
        "scan-by-scan": (scan_by_scan(image.convert("L"), 100), "the JPEG picture is drawn in 300 scans"),
        "long-strip": (png_of(2**16, 2, lines=2), "the picture is too large (65536 x 2 pixels)"),
        "flipped-byte": (bytes(flipped), "the PNG picture of 28 x 28 pixels in"),
        "above-the-cap": (
            png_of(2**13 + 1, 2**13, lines=1),
            "the picture is too large (8193 x 8192 pixels); send at most 67,108,864 pixels",
        ),
        "bomb": (png_of(60_000, 60_000, lines=60_000 // 10), "the picture is too large ("),
    }


def on_sheet(digit: np.ndarray, sheet: tuple[int, int], side: int, place: tuple[float, float]) -> Image.Image:
    """Draw a digit so many pixels large on black, at a place from 0 to 1."""
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    picture = Image.new("L", sheet)
    left, top = (round((length - side) * share) for length, share in zip(sheet, place, strict=True))
    picture.paste(large, (left, top))
    return picture
