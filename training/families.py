"""Families of image files, like those that people send: on paper, tilted, blurred, photographed, transparent.

Each takes one of MNIST's test digits, uint8 (28, 28), draws it larger and returns the bytes of a file. A
family has three severities; the middle one counts. Unless a family says otherwise, an image is black on white
or white on black at random.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from training.augmentation import MNIST_SHARE, SEEN, SIDE

SCALE = 5  # pixels drawn for each of MNIST's, along a side
LARGE = SIDE * SCALE
MIDDLE = 1  # the severity that counts
WHITE = 255
PHONE = (4000, 3000)  # 12 megapixels
PHONE_QUALITY = 85
PHONE_INK, PHONE_PAPER = 50.0, 215.0
PHONE_TINT = (1.0, 0.97, 0.9)  # of a lamp: the share of red, green and blue in its light
GRAIN = 6.0  # grey levels of a photo's noise
LUMINANCE = np.array([0.299, 0.587, 0.114])
COLOURS_TRIED = 500

Chance = np.random.Generator


@dataclass(frozen=True)
class Family:
    """One way in which images differ from MNIST's, at three severities from mild to strong."""

    name: str
    meaning: str  # what a severity's number means
    severities: tuple[float, float, float]
    draw: Callable[[np.ndarray, float, Chance], bytes]
    most: int | None = None  # images per severity, if each takes long


def enlarged(digit: np.ndarray, side: int = LARGE) -> Image.Image:
    """Return the digit's ink as an L image (side, side), 255 where it is full."""
    return Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)


def filling(digit: np.ndarray, share: float, place: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Return an L image (140, 140) of ink whose longer side fills `share` of it, at a place from 0 to 1."""
    large = enlarged(digit)
    crop = large.crop(large.point(lambda level: WHITE * (level > SEEN * WHITE)).getbbox())
    scale = share * LARGE / max(crop.size)
    crop = crop.resize([max(1, round(length * scale)) for length in crop.size], Image.Resampling.BICUBIC)
    sheet = Image.new("L", (LARGE, LARGE))
    room = [LARGE - length for length in crop.size]
    sheet.paste(crop, (round(room[0] * place[0]), round(room[1] * place[1])))
    return sheet


def on_paper(ink: Image.Image, chance: Chance, dark: float = 0.0, light: float = WHITE) -> np.ndarray:
    """Return grey levels float (H, W): dark on light, or light on dark."""
    share = np.asarray(ink, dtype=np.float32) / WHITE
    return light + (dark - light) * share if chance.integers(2) else dark + (light - dark) * share


def file_of(levels: np.ndarray, kind: str, **options: object) -> bytes:
    """Return grey levels (H, W), or colours (H, W, 3), from 0 to 255 as a file of that format."""
    return encoded(Image.fromarray(np.clip(np.rint(levels), 0, WHITE).astype(np.uint8)), kind, **options)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file of that format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def black_on_white(digit: np.ndarray, ink: float, _: Chance) -> bytes:
    """Return ink of this grey level on white paper."""
    share = np.asarray(enlarged(digit), dtype=np.float32) / WHITE
    return file_of(WHITE + (ink - WHITE) * share, "PNG")


def off_centre(digit: np.ndarray, reach: float, chance: Chance) -> bytes:
    """Return a digit of half the side, moved towards an edge by this share of the room."""
    angle = chance.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    place = 0.5 + 0.5 * reach * direction / np.abs(direction).max()
    return file_of(on_paper(filling(digit, 0.5, (place[0], place[1])), chance), "PNG")


def of_size(digit: np.ndarray, share: float, chance: Chance) -> bytes:
    """Return a digit that fills this share of the side."""
    return file_of(on_paper(filling(digit, share), chance), "PNG")


def thin(digit: np.ndarray, pixels: float, chance: Chance) -> bytes:
    """Take this many of MNIST's pixels off the strokes' width; what would vanish stays as it is."""
    ink, size = enlarged(digit), _odd(pixels)
    eroded = ink.filter(ImageFilter.MinFilter(size))
    lost = ImageChops.subtract(ink, eroded.filter(ImageFilter.MaxFilter(size)))
    return file_of(on_paper(ImageChops.lighter(eroded, lost), chance), "PNG")


def thick(digit: np.ndarray, pixels: float, chance: Chance) -> bytes:
    """Add this many of MNIST's pixels to the strokes' width."""
    return file_of(on_paper(enlarged(digit).filter(ImageFilter.MaxFilter(_odd(pixels))), chance), "PNG")


def tilted(digit: np.ndarray, degrees: float, chance: Chance) -> bytes:
    """Turn the digit left or right."""
    turned = enlarged(digit).rotate(degrees * chance.choice((-1, 1)), Image.Resampling.BICUBIC)
    return file_of(on_paper(turned, chance), "WEBP")


def slanted(digit: np.ndarray, tangent: float, chance: Chance) -> bytes:
    """Shear the digit left or right."""
    shear = tangent * chance.choice((-1, 1))
    data = (1, shear, -shear * LARGE / 2, 0, 1, 0)
    ink = enlarged(digit).transform((LARGE, LARGE), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    return file_of(on_paper(ink, chance), "PNG")


def blurred(digit: np.ndarray, pixels: float, chance: Chance) -> bytes:
    """Blur with a Gaussian of this deviation in MNIST's pixels."""
    ink = enlarged(digit).filter(ImageFilter.GaussianBlur(pixels * SCALE))
    return file_of(on_paper(ink, chance), "JPEG", quality=PHONE_QUALITY)


def side_lit(digit: np.ndarray, loss: float, chance: Chance) -> bytes:
    """Let the light fall off by this share from one edge to the other."""
    light = 1 - loss * (_across(LARGE, LARGE, chance) + 1) / 2
    return file_of(on_paper(enlarged(digit), chance) * light, "JPEG", quality=PHONE_QUALITY)


def shadowed(digit: np.ndarray, loss: float, chance: Chance) -> bytes:
    """Cover part of the image with a shadow that takes this share of the light."""
    edge = (_across(LARGE, LARGE, chance) - chance.uniform(-0.4, 0.4)) / chance.uniform(0.02, 0.15)
    levels = on_paper(enlarged(digit), chance) * (1 - loss / (1 + np.exp(-edge)))
    return file_of(levels, "JPEG", quality=PHONE_QUALITY)


def noisy(digit: np.ndarray, deviation: float, chance: Chance) -> bytes:
    """Add noise of this many grey levels to an image of MNIST's own size."""
    levels = on_paper(Image.fromarray(digit), chance)
    return file_of(levels + chance.normal(0, deviation, levels.shape), "PNG")


def as_jpeg(digit: np.ndarray, quality: float, chance: Chance) -> bytes:
    """Save an image of MNIST's own size as a JPEG file of this quality."""
    return file_of(on_paper(Image.fromarray(digit), chance), "JPEG", quality=int(quality))


def coarse(digit: np.ndarray, side: float, chance: Chance) -> bytes:
    """Enlarge an icon of this many pixels, which the digit fills."""
    icon = Image.fromarray(on_paper(filling(digit, 1.0), chance).astype(np.uint8))
    icon = icon.resize((int(side), int(side)), Image.Resampling.BOX)
    return encoded(icon.resize((LARGE, LARGE), Image.Resampling.BICUBIC), "PNG")


def coloured(digit: np.ndarray, contrast: float, chance: Chance) -> bytes:
    """Write in any colour on any other, this many grey levels apart."""
    pairs = chance.uniform(0, WHITE, (COLOURS_TRIED, 2, 3))
    apart = np.abs((pairs[:, 0] - pairs[:, 1]) @ LUMINANCE)
    paper, ink = pairs[np.abs(apart - contrast).argmin()]
    share = np.asarray(enlarged(digit), dtype=np.float32)[..., None] / WHITE
    return file_of(paper + (ink - paper) * share, "WEBP")


def ruled(digit: np.ndarray, darkness: float, chance: Chance) -> bytes:
    """Write on a sheet with lines or squares, this many grey levels from the paper's."""
    levels = on_paper(enlarged(digit), chance)
    distance, width = int(chance.integers(LARGE // 8, LARGE // 3)), int(chance.integers(3, 8))
    on_line = (np.arange(LARGE) + chance.integers(distance)) % distance < width
    lines = on_line[:, None] | (on_line & bool(chance.integers(2)))[None]
    bright = levels[0, 0] > WHITE / 2
    line = WHITE - darkness if bright else darkness
    return file_of(np.where(lines, (np.minimum if bright else np.maximum)(levels, line), levels), "PNG")


def transparent_black(digit: np.ndarray, opacity: float, _: Chance) -> bytes:
    """Draw black ink of this opacity on a transparent background."""
    return _transparent(digit, opacity, 0)


def transparent_white(digit: np.ndarray, opacity: float, _: Chance) -> bytes:
    """Draw white ink of this opacity on a transparent background."""
    return _transparent(digit, opacity, WHITE)


def photographed(digit: np.ndarray, share: float, chance: Chance) -> bytes:
    """Photograph a sheet at 12 megapixels: the digit fills this share of the photo's shorter side.

    The light falls off, a lamp tints it, there is grain, and the digit is slightly off centre. A photo
    is 4:3 or 3:4, and squeezed when it is read.
    """
    size = PHONE if chance.integers(2) else PHONE[::-1]
    side = round(share * min(size) / MNIST_SHARE)
    place = [round((length - side) / 2 + chance.uniform(-0.05, 0.05) * length) for length in size]
    ink = Image.new("L", size)
    ink.paste(enlarged(digit, side), (place[0], place[1]))
    soft = np.asarray(ink.filter(ImageFilter.BoxBlur(6)), dtype=np.float32) / WHITE
    light = 1 - np.float32(chance.uniform(0, 0.5)) * (_across(*size, chance) + 1) / 2
    levels = (PHONE_PAPER + (PHONE_INK - PHONE_PAPER) * soft) * light + _grain().reshape(soft.shape)
    grey = Image.fromarray(np.clip(levels, 0, WHITE).astype(np.uint8))
    colours = [grey.point([round(level * share) for level in range(WHITE + 1)]) for share in PHONE_TINT]
    return encoded(Image.merge("RGB", colours), "JPEG", quality=PHONE_QUALITY)


FAMILIES = (
    Family("black on white", "the ink's grey level", (0, 60, 120), black_on_white),
    Family("off centre", "how far to the edge", (0.4, 0.7, 1.0), off_centre),
    Family("small", "share of the side", (0.6, 0.5, 0.4), of_size),
    Family("frame-filling", "share of the side", (0.8, 0.9, 1.0), of_size),
    Family("thin", "pixels off the strokes", (0.4, 0.8, 1.2), thin),
    Family("thick", "pixels onto the strokes", (0.8, 1.6, 2.4), thick),
    Family("tilted", "degrees", (10, 20, 30), tilted),
    Family("slanted", "tangent", (0.2, 0.35, 0.5), slanted),
    Family("blurred", "deviation in pixels", (0.7, 1.1, 1.5), blurred),
    Family("lit from one side", "light lost", (0.4, 0.6, 0.8), side_lit),
    Family("in a shadow", "light lost", (0.3, 0.5, 0.7), shadowed),
    Family("noisy", "deviation in grey levels", (25, 50, 75), noisy),
    Family("JPEG", "quality", (30, 15, 8), as_jpeg),
    Family("low resolution", "pixels a side", (14, 10, 8), coarse),
    Family("coloured", "grey levels apart", (150, 100, 60), coloured),
    Family("ruled or squared", "grey levels from the paper", (40, 80, 120), ruled),
    Family("transparent, black ink", "opacity", (1.0, 0.7, 0.45), transparent_black),
    Family("transparent, white ink", "opacity", (1.0, 0.7, 0.45), transparent_white),
    Family("photo, 12 megapixels", "share of the shorter side", (0.8, 0.65, 0.5), photographed, most=50),
)


def _odd(pixels: float) -> int:
    """Return the side of a filter that removes or adds this many of MNIST's pixels, half on either side."""
    return 2 * round(pixels * SCALE / 2) + 1


def _across(width: int, height: int, chance: Chance) -> np.ndarray:
    """Return each pixel's position along a random direction, from -1 to 1: float32 (H, W)."""
    angle = chance.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(np.cos(angle))
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    return (across + down) / np.float32(abs(np.cos(angle)) + abs(np.sin(angle)))


def _transparent(digit: np.ndarray, opacity: float, level: int) -> bytes:
    alpha = enlarged(digit).point(lambda ink: round(ink * opacity))
    grey = Image.new("L", alpha.size, level)
    return encoded(Image.merge("RGBA", [grey, grey, grey, alpha]), "PNG")


@functools.cache
def _grain() -> np.ndarray:
    """Return the noise of a photo, float32, made once: it takes longer than everything else."""
    return np.random.default_rng(0).normal(0, GRAIN, PHONE[0] * PHONE[1]).astype(np.float32)
