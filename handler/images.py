"""From the bytes of a picture file to the pixels that the model takes.

What the values must be is defined by torchvision's Grayscale and Resize on a Pillow image; the tests
compare with them. Where that definition has nothing to say, a picture is read as a person sees it:
turned as its EXIF orientation says, transparency held against paper, 16 bits scaled and not cut off,
the first frame of an animation.
"""

from __future__ import annotations

import contextlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from contract import Contract

# Formats with a decoder of Pillow's own: none starts another program, as the one for EPS does.
# JPEG includes MPO, what many phones write as .jpg: one JPEG after another in a file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SEND = "send a whole PNG, JPEG, WebP, BMP, GIF or TIFF file"
# Enough for a 64-megapixel phone camera (9248 x 6936), and at 4 bytes a pixel below 256 MiB a copy.
# It is held against the header, before a pixel is decoded: a bomb costs no more than its header.
MAX_PIXELS = 2**26

GREYS_16_BIT = 65535.0
WHITE, BLACK = 255, 0
HALF_BRIGHT = 127.5
INK_SAMPLE = (64, 64)  # pixels in which a transparent picture's ink is weighed, whatever its size


class BadImage(ValueError):
    """A request whose picture cannot be read; the text says what came and what to send."""


def read_pixels(body: bytes, contract: Contract) -> np.ndarray:
    """Decode one picture file into uint8 pixels (H, W, C) of the contract's size and colour.

    Raises BadImage where the bytes are no picture, are cut short or hold too many pixels.
    """
    image = decode(body)
    try:
        image = as_seen(image).convert(contract.mode)
    except ValueError as error:
        raise BadImage(
            f"a {image.format} picture in {image.mode} cannot be shown in {contract.color} ({error}); "
            "send one in grey or RGB"
        ) from error
    return np.asarray(_fit(image, contract)).reshape(contract.height, contract.width, len(contract.mode))


def decode(body: bytes) -> Image.Image:
    """Open the bytes of a picture file and decode its first frame. Raises BadImage."""
    if not body:
        raise BadImage(f"the request has no content; {SEND}")
    image = _open(body)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width} x {image.height} pixels")
    try:
        image.load()
    except Exception as error:  # what a decoder raises on bad data, of any type, is the data's fault
        raise BadImage(
            f"the {image.format} picture of {image.width} x {image.height} pixels is truncated or "
            f"damaged in its {len(body)} bytes ({error}); send the whole file"
        ) from error
    return image


def as_seen(image: Image.Image) -> Image.Image:
    """Return the picture as a person sees it: upright, opaque and in 8 bits a channel."""
    _turn_upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image)
    if image.has_transparency_data:
        return _on_paper(image.convert("RGBA"))
    return image


def _fit(image: Image.Image, contract: Contract) -> Image.Image:
    """Bring a picture to the contract's size: squeezed into it, or scaled and cut out of the middle."""
    if contract.resize is None:
        return image.resize((contract.width, contract.height), Image.Resampling.BILINEAR)
    short, long = sorted(image.size)
    longer = int(contract.resize * long / short)  # as torchvision rounds
    if longer * contract.resize > MAX_PIXELS:
        raise _too_large(f"{image.width} x {image.height} pixels, scaled to {contract.resize} x {longer}")
    portrait = image.width <= image.height
    image = image.resize(
        (contract.resize, longer) if portrait else (longer, contract.resize), Image.Resampling.BILINEAR
    )
    left = round((image.width - contract.width) / 2)
    top = round((image.height - contract.height) / 2)
    return image.crop((left, top, left + contract.width, top + contract.height))


def _open(body: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(body), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(str(error)) from error
    except Exception as error:  # hostile headers raise a dozen types, from OSError to struct.error
        raise BadImage(
            f"cannot read {len(body)} bytes starting {bytes(body[:4])!r} as an image; {SEND}"
        ) from error


def _too_large(size: str) -> BadImage:
    return BadImage(f"the picture is too large ({size}); send at most {MAX_PIXELS:,} pixels")


def _turn_upright(image: Image.Image) -> None:
    # A broken EXIF block spoils no picture: viewers show it as it lies.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit and float grey levels to 0..255; Pillow's own conversion cuts them off at 255."""
    levels = np.array(image, dtype=np.float32)
    white = GREYS_16_BIT
    if image.mode == "F":
        np.nan_to_num(levels, copy=False)
        white = 1.0 if levels.max(initial=0.0) <= 1 else 255.0
    levels.clip(0, white, out=levels)
    levels *= WHITE / white
    np.rint(levels, out=levels)
    return Image.fromarray(levels.astype(np.uint8))


def _on_paper(image: Image.Image) -> Image.Image:
    """Hold an RGBA picture against white paper, or against black where its ink is white.

    The ink's mean brightness, weighted by its opacity, decides: what would vanish on white paper is
    held against black, as chalk is read on a board.
    """
    sample = image.resize(INK_SAMPLE, Image.Resampling.BOX)
    grey = np.asarray(sample.convert("L"), dtype=np.float32)
    alpha = np.asarray(sample.getchannel("A"), dtype=np.float32)
    white_ink = float((grey * alpha).sum()) > HALF_BRIGHT * float(alpha.sum())
    paper = Image.new("RGB", image.size, (BLACK,) * 3 if white_ink else (WHITE,) * 3)
    paper.paste(image, mask=image.getchannel("A"))
    return paper
