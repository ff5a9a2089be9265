"""The images that are sent: a digit as in MNIST, from the web and from a phone, and in every format."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

FOLDER = Path(__file__).parents[2] / "tests" / "images"
DIGITS = {str(digit): (FOLDER / f"{digit}.png").read_bytes() for digit in range(10)}
LABEL = "2"  # of the images of the load
WEB = (250, 250)
PHONE = (4000, 3000)  # 12 megapixels
GRAIN = 2.0  # grey levels of a phone's noise in good light
QUALITY = 85  # of the JPEG
TINT = np.array([1.0, 0.97, 0.9], dtype=np.float32)  # of a lamp
EXIF_ORIENTATION = 0x0112
EXIF_TURNED = 6  # the camera was held upright: shown a quarter turn clockwise
SCAN_HEADER = b"\xff\xda\x00\x08\x01"  # of one component


def load_images() -> dict[str, bytes]:
    """Return the image files of the load, by their names in the tables."""
    digit = opened(DIGITS[LABEL]).convert("L")
    return {
        "28x28 PNG": DIGITS[LABEL],
        "250x250 RGBA PNG": encoded(enlarged(digit).convert("RGBA"), "PNG"),
        "12-megapixel JPEG": phone_photo(digit),
    }


def phone_photo(digit: Image.Image, seed: int = 0) -> bytes:
    """Return a photo of a digit in chalk on slate: uneven light, a tint, soft edges, grain."""
    noise = np.random.default_rng(seed)
    soft = digit.resize(PHONE, Image.Resampling.BICUBIC).filter(ImageFilter.BoxBlur(6))
    levels = np.asarray(soft, dtype=np.float32)
    light = np.linspace(0.85, 1.0, PHONE[0], dtype=np.float32)
    levels = (levels * 0.85 + 12) * light
    levels += noise.normal(0, GRAIN, levels.shape).astype(np.float32)
    colors = np.clip(levels[..., None] * TINT, 0, 255).astype(np.uint8)
    return encoded(Image.fromarray(colors), "JPEG", quality=QUALITY)


def opened(body: bytes) -> Image.Image:
    """Open an image file."""
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file of the given format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def enlarged(image: Image.Image) -> Image.Image:
    """Return the image at 250 x 250."""
    return image.resize(WEB, Image.Resampling.BICUBIC)


def grey_alpha(image: Image.Image) -> Image.Image:
    """Return an opaque image with an alpha channel."""
    return Image.merge("LA", [image, Image.new("L", image.size, 255)])


def tinted(image: Image.Image) -> Image.Image:
    """Return the white ink in yellow, as RGB."""
    return Image.merge("RGB", [image, image, image.point(lambda level: level // 3)])


def chalk(image: Image.Image) -> Image.Image:
    """Return white ink on a transparent background."""
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


def scan_by_scan(grey: Image.Image, times: int = 1) -> bytes:
    """Return a grey image as a baseline colour JPEG with `times` scans for each component."""
    one = encoded(grey, "JPEG")
    frame, scan = one.index(b"\xff\xc0"), one.index(SCAN_HEADER)
    frame_end = frame + 2 + int.from_bytes(one[frame + 2 : frame + 4], "big")
    size = one[frame + 5 : frame + 9]
    components = b"".join(bytes([name, 0x11, 0]) for name in (1, 2, 3))
    three = b"\xff\xc0\x00\x11\x08" + size + b"\x03" + components
    data = one[scan + len(SCAN_HEADER) + 5 : -2]
    scans = b"".join(SCAN_HEADER + bytes([name, 0, 0, 63, 0]) + data for name in (1, 2, 3))
    return one[:frame] + three + one[frame_end:scan] + scans * times + one[-2:]


def png_file(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG of these chunks, names and data, with correct checksums."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def png_chunks(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the names and data of a PNG's chunks."""
    file, chunks = io.BytesIO(body[8:]), []
    while head := file.read(8):
        length, name = struct.unpack(">I4s", head)
        chunks.append((name, file.read(length)))
        file.read(4)
    return chunks


def with_chunk(body: bytes, name: bytes, data: bytes, *, last: bool = False) -> bytes:
    """Return a PNG with one more chunk, the second or the last but one."""
    chunks = png_chunks(body)
    chunks.insert(-1 if last else 1, (name, data))
    return png_file(chunks)


# Twice what Pillow decompresses of a text.
HEAVY = zlib.compress(bytes(2**21))
# Encodings of the same digit; each of them looks like white ink on black.
VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    "png": lambda i: encoded(i, "PNG"),
    "png-250": lambda i: encoded(enlarged(i), "PNG"),
    "png-rgb": lambda i: encoded(tinted(enlarged(i)), "PNG"),
    "png-rgba": lambda i: encoded(enlarged(i).convert("RGBA"), "PNG"),
    "png-grey-alpha": lambda i: encoded(grey_alpha(i), "PNG"),
    "png-chalk-on-nothing": lambda i: encoded(chalk(enlarged(i)), "PNG"),
    "png-palette": lambda i: encoded(tinted(i).convert("P"), "PNG"),
    "png-heavy-text": lambda i: with_chunk(encoded(i, "PNG"), b"zTXt", b"Comment\0\0" + HEAVY),
    "png-palette-heavy-text": lambda i: with_chunk(
        encoded(tinted(i).convert("P"), "PNG"), b"iTXt", b"Comment\0\1\0\0\0" + HEAVY, last=True
    ),
    "png-palette-heavy-profile": lambda i: with_chunk(
        encoded(tinted(i).convert("P"), "PNG"), b"iCCP", b"profile\0\0" + HEAVY
    ),
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
