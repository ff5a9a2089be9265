"""The pictures that are sent: one as MNIST has it, one as the web has it, one as a phone takes it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

DIGIT = Path(__file__).parents[1] / "tests" / "images" / "2.png"
LABEL = "2"
WEB = (250, 250)
PHONE = (4000, 3000)  # 12 megapixels
GRAIN = 2.0     # grey levels of noise that a phone leaves in good light
QUALITY = 85    # of the JPEG
TINT = np.array([1.0, 0.97, 0.9], dtype=np.float32)  # of a lamp


def load_pictures() -> dict[str, bytes]:
    """Return the picture files by the names that the tables call them."""
    digit = Image.open(DIGIT).convert("L")
    return {
        "28x28 PNG": DIGIT.read_bytes(),
        "250x250 RGBA PNG": _encoded(digit.resize(WEB, Image.Resampling.BICUBIC).convert("RGBA"), "PNG"),
        "12-megapixel JPEG": phone_photo(digit),
    }


def in_a_corner() -> bytes:
    """Return a PNG file of the size that the web has, black on white: the digit must be looked for twice."""
    sheet = Image.new("L", WEB, 255)
    sheet.paste(ImageOps.invert(Image.open(DIGIT).convert("L")).resize((100, 100)), (10, 10))
    return _encoded(sheet, "PNG")


def phone_photo(digit: Image.Image, seed: int = 0) -> bytes:
    """Return a photo of a digit in chalk on slate: uneven light, a tint, soft edges, grain."""
    noise = np.random.default_rng(seed)
    soft = digit.resize(PHONE, Image.Resampling.BICUBIC).filter(ImageFilter.BoxBlur(6))
    levels = np.asarray(soft, dtype=np.float32)
    light = np.linspace(0.85, 1.0, PHONE[0], dtype=np.float32)
    levels = (levels * 0.85 + 12) * light
    levels += noise.normal(0, GRAIN, levels.shape).astype(np.float32)
    colors = np.clip(levels[..., None] * TINT, 0, 255).astype(np.uint8)
    return _encoded(Image.fromarray(colors), "JPEG", quality=QUALITY)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
