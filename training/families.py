"""Families of image files, like those that people send: on paper, tilted, blurred, photographed, transparent.

Each takes one of MNIST's test digits, uint8 (28, 28), draws it larger and returns the bytes of a file. A
family has three severities; the middle one counts. Unless a family says otherwise, an image is black on white
or white on black at random.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.augmentation import MNIST_SHARE, SIDE
from training.image_files import (
    LARGE,
    LUMINANCE,
    PHONE_QUALITY,
    PHONE_TINT,
    SCALE,
    WHITE,
    Chance,
    Family,
    across,
    encoded,
    enlarged,
    file_of,
    filling,
    inked,
    on_paper,
    thickened,
    thinned,
)
from training.surroundings import in_cell, in_margin, on_squared_paper, plotted

MIDDLE = 1  # the severity that counts
PHONE = (4000, 3000)  # 12 megapixels
PHONE_INK, PHONE_PAPER = 50.0, 215.0
GRAIN = 6.0  # grey levels of a photo's noise
COLOURS_TRIED = 500
# Of digits that their frame cuts: pixels drawn for each of MNIST's, and the least width, as a share of the
# height. Without it a 1 would be all ink.
CUT_SCALE, LEAST_WIDTH = 10, 1 / 3
# Of files of MNIST's size that others made: the ink's and the paper's levels, black on white.
OTHERS_INK, OTHERS_PAPER = (0, 60), (215, 250)
BALLPOINT = (1.2, 1.0, 0.4)  # the share of red, green and blue that its ink takes, blue least
BALLPOINT_THINNER = 1.2  # of MNIST's pixels
BALLPOINT_GRAIN = 3.0  # grey levels
GREY_PAPER = (140, 200)
SLASH_WIDTHS = (1.2, 2.4)  # of MNIST's pixels
SLASH_ANGLES = (40, 65)  # degrees


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
    return file_of(on_paper(thinned(enlarged(digit), pixels), chance), "PNG")


def thick(digit: np.ndarray, pixels: float, chance: Chance) -> bytes:
    """Add this many of MNIST's pixels to the strokes' width."""
    return file_of(on_paper(thickened(enlarged(digit), pixels), chance), "PNG")


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
    light = 1 - loss * (across(LARGE, LARGE, chance) + 1) / 2
    return file_of(on_paper(enlarged(digit), chance) * light, "JPEG", quality=PHONE_QUALITY)


def shadowed(digit: np.ndarray, loss: float, chance: Chance) -> bytes:
    """Cover part of the image with a shadow that takes this share of the light."""
    edge = (across(LARGE, LARGE, chance) - chance.uniform(-0.4, 0.4)) / chance.uniform(0.02, 0.15)
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
    light = 1 - np.float32(chance.uniform(0, 0.5)) * (across(*size, chance) + 1) / 2
    levels = (PHONE_PAPER + (PHONE_INK - PHONE_PAPER) * soft) * light + _grain().reshape(soft.shape)
    grey = Image.fromarray(np.clip(levels, 0, WHITE).astype(np.uint8))
    colours = [grey.point([round(level * share) for level in range(WHITE + 1)]) for share in PHONE_TINT]
    return encoded(Image.merge("RGB", colours), "JPEG", quality=PHONE_QUALITY)


def cut(digit: np.ndarray, pixels: float, chance: Chance) -> bytes:
    """Let the digit fill the image to its four edges, which cut off this many of MNIST's pixels each."""
    large = enlarged(digit, SIDE * CUT_SCALE)
    left, top, right, bottom = inked(large)
    off = round(pixels * CUT_SCALE)
    # What a narrow digit lacks in width is paper.
    beside = max(0, round((LEAST_WIDTH * (bottom - top) - (right - left)) / 2))
    box = (left + off - beside, top + off, right - off + beside, bottom - off)
    return file_of(on_paper(large.crop(box), chance), "PNG")


def of_own_size(digit: np.ndarray, share: float, chance: Chance) -> bytes:
    """Return a file of 28 x 28 pixels, not made as MNIST's are.

    The digit fills this share of the side and is anywhere. Neither ink nor paper is quite black or white.
    """
    place = chance.uniform(0, 1, 2)
    ink = filling(digit, share, (place[0], place[1])).resize((SIDE, SIDE), Image.Resampling.BOX)
    return file_of(on_paper(ink, chance, chance.uniform(*OTHERS_INK), chance.uniform(*OTHERS_PAPER)), "PNG")


def by_ballpoint(digit: np.ndarray, contrast: float, chance: Chance) -> bytes:
    """Write thinly, in blue or black on grey paper, this many grey levels apart."""
    ink = np.asarray(thinned(enlarged(digit), BALLPOINT_THINNER), dtype=np.float32)[..., None] / WHITE
    taken = np.array(BALLPOINT if chance.integers(2) else (1, 1, 1))
    paper = chance.uniform(*GREY_PAPER) + chance.normal(0, BALLPOINT_GRAIN, (LARGE, LARGE, 1))
    return file_of(paper - contrast * taken / (taken @ LUMINANCE) * ink, "JPEG", quality=PHONE_QUALITY)


def slashed(digit: np.ndarray, length: float, chance: Chance) -> bytes:
    """Draw a slash through a zero, as long as this share of its height, or of its width if that is more."""
    ink = enlarged(digit)
    left, top, right, bottom = inked(ink)
    middle = np.array([left + right, top + bottom]) / 2
    angle = np.radians(chance.uniform(*SLASH_ANGLES))
    half = length * max(right - left, bottom - top) / 2 * np.array([np.cos(angle), -np.sin(angle)])
    ends = [tuple(point) for point in (middle - half, middle + half)]
    ImageDraw.Draw(ink).line(ends, fill=WHITE, width=round(chance.uniform(*SLASH_WIDTHS) * SCALE))
    return file_of(on_paper(ink, chance), "PNG")


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
    Family("plot of matplotlib", "inches a side", (3.7, 2.2, 1.2), plotted, most=100),
    Family("margin of another colour", "share of the side", (0.1, 0.2, 0.4), in_margin),
    Family("cell of a form", "slant and thickness", (1, 2, 4), in_cell),
    Family("photo of squared paper", "grey levels from the paper", (30, 50, 70), on_squared_paper),
    Family("cut by its frame", "pixels cut off", (0, 0.3, 0.6), cut),
    Family("28 x 28 by others", "share of the side", (0.95, 0.7, 0.45), of_own_size),
    Family("ballpoint on grey paper", "grey levels apart", (80, 55, 35), by_ballpoint),
    Family("slashed zero", "length of the slash", (0.6, 1.0, 1.4), slashed, digits=(0,)),
)


def _transparent(digit: np.ndarray, opacity: float, level: int) -> bytes:
    alpha = enlarged(digit).point(lambda ink: round(ink * opacity))
    grey = Image.new("L", alpha.size, level)
    return encoded(Image.merge("RGBA", [grey, grey, grey, alpha]), "PNG")


@functools.cache
def _grain() -> np.ndarray:
    """Return the noise of a photo, float32, made once: it takes longer than everything else."""
    return np.random.default_rng(0).normal(0, GRAIN, PHONE[0] * PHONE[1]).astype(np.float32)
