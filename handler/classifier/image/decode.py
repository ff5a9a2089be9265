"""From the bytes of an image file to the pixels that the model takes.

The values are defined by torchvision's Grayscale and Resize on a Pillow image; the tests compare with them.
Beyond that definition, an image is read as a person sees it: rotated by its EXIF orientation, transparency
drawn on a background, 16 bits scaled and not clipped, the first frame of an animation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from ..contract import Contract
from ..errors import BadImage, Reason
from . import jpeg as jpeg_file
from . import png as plain_png
from .centring import centred, in_place
from .limits import MAX_PIXELS, memory_to_read, refuse_beyond_memory, refuse_costly, too_large

# Formats that Pillow decodes itself: none starts another program, as EPS does.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SEND = "send a whole PNG, JPEG, WebP, BMP, GIF or TIFF file"

ORIENTATION = ExifTags.Base.Orientation
WHITE, BLACK = 255, 0
# Levels of white in a float or 32-bit image: the first that its largest level does not exceed is used.
WHITES = (1.0, 255.0, 65535.0)
FITS = 1.01
INK_SAMPLE = (64, 64)  # size of the sample from which a transparent image's ink is measured
DARK_INK = 0.01  # the share of dark ink from which an image is visible on white


def read_pixels(body: bytes, contract: Contract) -> np.ndarray:
    """Decode one image file into uint8 pixels (H, W, C) of the contract's size and colour.

    Raises BadImage if the bytes are not an image, are truncated, or hold more pixels than is allowed or than
    fit into memory.
    """
    if not body:
        raise BadImage("the request has no content", SEND, Reason.EMPTY)
    plain = plain_png.decode(body)
    if plain is None:
        return _by_pillow(body, contract)
    channels, *size = contract.shape
    if plain.shape == (*size, channels) and contract.resize is None:
        if contract.ink is None:
            return plain
        placed = in_place(plain[..., 0], contract.ink)
        if placed is not None:
            return placed[..., None]
    return _fitted(plain_png.as_image(plain), contract)


def _by_pillow(body: bytes, contract: Contract) -> np.ndarray:
    image = _open(body)
    refuse_costly(image, body)
    whole = image.size
    try:
        if image.format in jpeg_file.FORMATS:
            jpeg_file.decode_at_once(image, body)
            jpeg_file.reduce(image, contract.mode, max(contract.resize or 0, contract.height, contract.width))
        refuse_beyond_memory(whole, memory_to_read(image, whole))
        image.load()
        return _fitted(image, contract)
    except BadImage:
        raise
    except Exception as error:  # bad data makes decoders raise many types
        raise BadImage(
            f"the {image.format} image of {whole[0]} x {whole[1]} pixels in {len(body)} bytes is "
            f"truncated, damaged or of an unsupported kind ({error})",
            "send the whole file",
        ) from error


def _fitted(image: Image.Image, contract: Contract) -> np.ndarray:
    """Return a decoded image as a person sees it: uint8 (H, W, C) in the contract's colour and size."""
    seen = _in_mode(as_seen(image), contract.mode)
    if contract.ink is not None:
        return centred(seen, (contract.width, contract.height), contract.ink)[..., None]
    fitted = _fit(seen, contract)
    pixels = np.frombuffer(fitted.tobytes(), np.uint8)
    return pixels.reshape(contract.height, contract.width, len(contract.mode))


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def as_seen(image: Image.Image) -> Image.Image:
    """Return the image as a person sees it: upright, opaque and in 8 bits a channel."""
    _turn_upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image)
    if image.has_transparency_data:
        image = _in_mode(image, "RGBA")
        return image if _is_opaque(image) else _on_paper(image)
    return image


def _is_opaque(image: Image.Image) -> bool:
    alpha = image.getchannel("A")
    return alpha.histogram()[WHITE] == alpha.width * alpha.height


def _fit(image: Image.Image, contract: Contract) -> Image.Image:
    """Bring an image to the contract's size: squeezed into it, or scaled and cropped to the middle."""
    if contract.resize is None:
        size = (contract.width, contract.height)
        return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    short, long = sorted(image.size)
    longer = int(contract.resize * long / short)  # as torchvision rounds
    if longer * contract.resize > MAX_PIXELS:
        raise too_large(f"{image.width} x {image.height} pixels, scaled to {contract.resize} x {longer}")
    portrait = image.width <= image.height
    image = image.resize(
        (contract.resize, longer) if portrait else (longer, contract.resize), Image.Resampling.BILINEAR
    )
    left = round((image.width - contract.width) / 2)
    top = round((image.height - contract.height) / 2)
    return image.crop((left, top, left + contract.width, top + contract.height))


def _open(body: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(BytesIO(plain_png.without_metadata(body)), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large(str(error)) from error
    except Exception as error:  # hostile headers make Pillow raise many types
        raise BadImage(
            f"cannot read {len(body)} bytes starting {bytes(body[:4])!r} as an image",
            SEND,
            Reason.UNKNOWN_FORMAT,
        ) from error


def check_together(bodies: Sequence[bytes]) -> None:
    """Raise BadImage if the images of one request have more pixels in total than one image may have.

    As for one image, the headers decide. Without this, a request could keep a worker busy for minutes.
    """
    pixels = sum(map(_pixels_in, bodies))
    if pixels > MAX_PIXELS:
        raise BadImage(
            f"the {len(bodies)} images have {pixels:,} pixels in total",
            f"send at most {MAX_PIXELS:,} per request",
            Reason.TOO_LARGE,
        )


def _pixels_in(body: bytes) -> int:
    """Return the number of pixels that a header gives; 0 if it cannot be read, which fails later."""
    try:
        image = _open(body)
    except BadImage:
        return 0
    return image.width * image.height


def _turn_upright(image: Image.Image) -> None:
    # A broken EXIF block is ignored, as by viewers.
    with contextlib.suppress(Exception):
        if ORIENTATION in image.getexif():  # few small images have one
            ImageOps.exif_transpose(image, in_place=True)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey levels to 0..255; Pillow's own conversion would clip them."""
    levels = np.array(image, dtype=np.float32)
    white = WHITES[-1] if image.mode.startswith("I;16") else _white_of(levels)
    np.nan_to_num(levels, copy=False, posinf=white, neginf=0)
    levels.clip(0, white, out=levels)
    levels *= WHITE / white
    np.rint(levels, out=levels)
    return Image.fromarray(levels.astype(np.uint8))


def _white_of(levels: np.ndarray) -> float:
    """Return the level of white: 1, 255 or 65535, the first that fits the largest level, else that one."""
    largest = float(levels.max(initial=0.0, where=np.isfinite(levels)))
    return next((white for white in WHITES if largest <= white * FITS), largest)


def _on_paper(image: Image.Image) -> Image.Image:
    """Draw an RGBA image on white, or on black if it would vanish on white.

    It would if hardly any of it, weighted by opacity, is darker than mid-grey: chalk, made for blackboards.
    """
    sample = image.resize(INK_SAMPLE, Image.Resampling.BOX)
    dark = np.asarray(sample.convert("L")) <= WHITE // 2
    alpha = np.asarray(sample.getchannel("A"), dtype=np.float32)
    chalk = alpha.any() and float(alpha[dark].sum()) < DARK_INK * float(alpha.sum())
    paper = Image.new("RGB", image.size, (BLACK,) * 3 if chalk else (WHITE,) * 3)
    paper.paste(image, mask=image.getchannel("A"))
    return paper
