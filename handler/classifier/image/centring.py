"""Bring a drawing to the size, place and grey levels that the model knows, as MNIST's authors did.

The drawing is found on a small copy of the image. Then its part of the image is scaled: the ink's longer side
becomes `ink_side` pixels, and the mean place of the ink comes to the middle. Ink becomes white, all else
black.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from .drawing import INK, WHITE, Box, Drawing, find, is_even

# A drawing is looked for on a grid of at most this many pixels a side,
GRID = 72
# once more, closely, if its longer side is shorter than this there,
SMALL = 14
# and taken from pixels as fine as this many in one of the model's, each way.
FINE = 3
FULL = 5  # the strongest fifth of the ink is white
# An image of the model's own size stays as it is if its contrast is at least this, and the drawing's size and
# place are off by at most so many pixels.
CONTRAST, SIZE_TOLERANCE, PLACE_TOLERANCE = 200, 1.5, 1.5


class Found(NamedTuple):
    """A drawing, and where its ink is on the grid."""

    drawing: Drawing
    factor: int  # how many of the image's pixels, each way, are one of the grid
    box: Box
    x: float  # the mean place of the ink
    y: float

    @property
    def longer(self) -> int:
        """The longer side of the box, in the grid's pixels."""
        return max(self.box.bottom - self.box.top, self.box.right - self.box.left)


class Window(NamedTuple):
    """A part of the image, in its pixels; it may reach beyond the edges."""

    left: float
    top: float
    pixel: float  # the side of one of the model's pixels


def centred(image: Image.Image, size: tuple[int, int], ink_side: int) -> np.ndarray:
    """Return a grey image as uint8 (H, W) with its drawing in the middle, white on black.

    `size` is the width and height. If nothing is drawn, it is the whole image, resized.
    """
    if image.size == size:
        placed = in_place(np.asarray(image), ink_side)
        if placed is not None:
            return placed
    found = _found(image)
    if found is None:
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    if found.factor > 1 and found.longer < SMALL:
        part = image.crop(_surroundings(image, found))
        closer = _found(part)
        if closer is not None:
            image, found = part, closer
    return _white_on_black(*_look(image, found, size, ink_side))


def _found(image: Image.Image) -> Found | None:
    factor = -(-max(image.size) // GRID)
    drawing = find(np.asarray(_reduced(image, factor)))
    if drawing is None:
        return None
    top, left, *_ = drawing.part
    columns, rows = drawing.ink.sum(axis=0), drawing.ink.sum(axis=1)
    across, down = columns.nonzero()[0], rows.nonzero()[0]
    box = Box(int(down[0]) + top, int(across[0]) + left, int(down[-1]) + 1 + top, int(across[-1]) + 1 + left)
    count = int(rows.sum())
    x = left + int(columns @ np.arange(len(columns))) / count + 0.5
    y = top + int(rows @ np.arange(len(rows))) / count + 0.5
    return Found(drawing, factor, box, x, y)


def _surroundings(image: Image.Image, found: Found) -> tuple[int, int, int, int]:
    """Return the part of the image with the ink and, on each side, as much again."""
    part, box, factor = found.drawing.part, found.box, found.factor
    return (
        max(box.left - found.longer, part.left) * factor,
        max(box.top - found.longer, part.top) * factor,
        min(min(box.right + found.longer, part.right) * factor, image.width),
        min(min(box.bottom + found.longer, part.bottom) * factor, image.height),
    )


def in_place(levels: np.ndarray, ink_side: int) -> np.ndarray | None:
    """Return an image (H, W) that is as the model knows them already, white on black; else None."""
    paper = int(levels[0, 0])
    if paper not in {0, WHITE} or not is_even(levels):
        return None
    strength = levels if paper == 0 else WHITE - levels
    most = int(strength.max())
    if most < CONTRAST:
        return None
    # As float32, sums are a matter of a microsecond, and these are exact.
    inked = (strength >= np.uint8(-(-most * INK // 100))).astype(np.float32)
    of_height, of_width = (_ones_and_places(length) for length in levels.shape)
    columns, rows = of_height.ones @ inked, inked @ of_width.ones
    count = float(rows @ of_height.ones)
    off_x = float(columns @ of_width.places) / count - levels.shape[1] / 2
    off_y = float(rows @ of_height.places) / count - levels.shape[0] / 2
    if abs(off_x) > PLACE_TOLERANCE or abs(off_y) > PLACE_TOLERANCE:
        return None
    return strength if abs(max(_extent(columns), _extent(rows)) - ink_side) <= SIZE_TOLERANCE else None


class _Axis(NamedTuple):
    ones: np.ndarray  # float32 (N,)
    places: np.ndarray  # float32 (N,): the middles of its pixels


@cache
def _ones_and_places(length: int) -> _Axis:
    return _Axis(np.ones(length, np.float32), np.arange(length, dtype=np.float32) + np.float32(0.5))


def _extent(marks: np.ndarray) -> int:
    """Return how far it is from the first mark above 0 to the last."""
    used = (marks > 0).tobytes()
    return used.rindex(1) + 1 - used.index(1)


def _look(
    image: Image.Image, found: Found, size: tuple[int, int], ink_side: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return how far each pixel is from the paper, towards the ink, int (H, W); and where ink is, bool.

    The latter is None if nothing but the drawing is in the image.
    """
    drawing, factor = found.drawing, found.factor
    top, left, bottom, right = (length * factor for length in drawing.part)
    width, height = size
    window = _around(found, size, ink_side)
    columns, of_width = _within(window.left, window.pixel, left, min(right, image.width), width)
    rows, of_height = _within(window.top, window.pixel, top, min(bottom, image.height), height)
    part = _near(image, window.pixel, of_width, of_height)
    part_size = (columns.stop - columns.start, rows.stop - rows.start)
    levels = np.asarray(part.resize(part_size, Image.Resampling.BILINEAR))
    paper, inked = drawing.paper, None
    if drawing.others is not None or isinstance(paper, np.ndarray):
        grid = window.pixel / factor
        across = _cells(columns, window.left / factor, grid, drawing.part.left, drawing.part.right)
        down = _cells(rows, window.top / factor, grid, drawing.part.top, drawing.part.bottom)
        places = np.ix_(down, across)
        paper = paper[places] if isinstance(paper, np.ndarray) else paper
    strength = paper - levels if drawing.is_dark else levels - paper
    if drawing.others is not None:
        strength[(_thicker(drawing.others) & ~_thicker(drawing.ink))[places]] = 0
        inked = _in_window(drawing.ink[places], rows, columns, size)
    return _in_window(strength, rows, columns, size), inked


def _in_window(values: np.ndarray, rows: slice, columns: slice, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) with the values at those places, and 0 elsewhere."""
    if values.shape == size[::-1]:
        return values
    whole = np.zeros(size[::-1], values.dtype)
    whole[rows, columns] = values
    return whole


def _white_on_black(strength: np.ndarray, inked: np.ndarray | None) -> np.ndarray:
    """Return uint8 (H, W): 0 where there is paper, 255 where ink is as strong as in most of the drawing."""
    strength = np.maximum(strength, 0, dtype=np.int32)
    own = strength.ravel() if inked is None else strength[inked]
    most = int(own.max(initial=0))
    if most == 0:
        return strength.astype(np.uint8)
    strong = np.sort(own[own * 100 >= INK * most])
    full = int(strong[-1 - len(strong) // FULL])
    levels: np.ndarray = np.minimum((strength * WHITE + full // 2) // full, WHITE)
    return levels.astype(np.uint8)


def _around(found: Found, size: tuple[int, int], ink_side: int) -> Window:
    """Return the window in which the drawing is in the middle and has its size."""
    pixel = found.longer * found.factor / ink_side
    x, y = found.x * found.factor, found.y * found.factor
    return Window(x - pixel * size[0] / 2, y - pixel * size[1] / 2, pixel)


def _within(start: float, pixel: float, low: int, high: int, cells: int) -> tuple[slice, tuple[float, float]]:
    """Return which of the window's cells lie within limits, and which part of the image they are."""
    first = min(max(math.ceil((low - start) / pixel), 0), cells - 1)
    last = max(min(math.floor((high - start) / pixel), cells), first + 1)
    return slice(first, last), (max(start + first * pixel, 0.0), min(start + last * pixel, float(high)))


def _near(
    image: Image.Image, pixel: float, of_width: tuple[float, float], of_height: tuple[float, float]
) -> Image.Image:
    """Return that part of the image with FINE or a few more pixels, each way, in one of the model's."""
    if pixel < FINE:
        factor = math.ceil(FINE / pixel)
        width, height = image.width * factor, image.height * factor
        left, right = _pixels(of_width, float(factor), width)
        top, bottom = _pixels(of_height, float(factor), height)
        return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, right, bottom))
    factor = int(pixel / FINE)
    left, right = _pixels(of_width, 1 / factor, -(-image.width // factor))
    top, bottom = _pixels(of_height, 1 / factor, -(-image.height // factor))
    box = (
        left * factor,
        top * factor,
        min(right * factor, image.width),
        min(bottom * factor, image.height),
    )
    return image.crop(box) if factor == 1 else image.reduce(factor, box)


def _pixels(part: tuple[float, float], scale: float, most: int) -> tuple[int, int]:
    """Return the first pixel of a part of the image at that scale, and the one after the last."""
    first = min(_rounded(part[0] * scale), most - 1)
    return first, max(min(_rounded(part[1] * scale), most), first + 1)


def _cells(cells: slice, start: float, pixel: float, low: int, high: int) -> np.ndarray:
    """Return which of the grid's columns, counted within its part, each of the window's columns lies in."""
    middles = (np.arange(cells.start, cells.stop) + 0.5) * pixel + start
    return np.clip(middles.astype(np.int64) - low, 0, high - low - 1)


def _thicker(mask: np.ndarray) -> np.ndarray:
    """Return a mask with the pixels around it."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    result = wide.copy()
    result[:, 1:] |= wide[:, :-1]
    result[:, :-1] |= wide[:, 1:]
    return result


def _rounded(number: float) -> int:
    """Round halves up, which Python's own function does not."""
    return math.floor(number + 0.5)


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Return the means of squares of that many pixels a side."""
    return image if factor == 1 else image.reduce(factor)
