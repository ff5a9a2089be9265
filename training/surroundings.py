"""Families of image files with something around the digit: axes, a margin, the lines of a cell, squares."""

from __future__ import annotations

import functools
import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image, ImageDraw

from training.augmentation import SIDE
from training.image_files import (
    LARGE,
    LUMINANCE,
    PHONE_QUALITY,
    PHONE_TINT,
    WHITE,
    Chance,
    across,
    enlarged,
    file_of,
    filling,
    inked,
    on_paper,
)

COLOUR_MAPS = ("gray", "viridis", "gray_r", "binary")  # two show light ink on dark, two dark on light
AXES = ("ticks", "ticks and title", "no ticks", "nothing")
AXES_SHARE = 0.77  # of the height of a figure, as matplotlib places them
FIGURE_SHAPES = (1.0, 4 / 3)  # width to height; the second is matplotlib's own
DPI = (72, 100, 150)
# The levels of ink and paper in a screenshot, and how far the margin's is from the paper's at least.
SCREEN_INK, SCREEN_PAPER, APART = (0, 60), (190, 255), 40
NARROWEST = 0.1  # of the widest margin
COLOURS_TRIED = 100
# Of a cell, relative to the image's side: its size in pixels, the digit's share, how far off the middle the
# digit is, and how far from the edge the lines are.
CELL_SIDES, CELL_SHARES, CELL_OFF, CELL_INSETS = (60, 260), (0.35, 0.6), 0.1, (0.0, 0.1)
THINNEST = 0.5  # percent of the side
# At this severity a share of the digits touch a line, and reach into it by a share of the image's side.
TOUCHING, TOUCH, INTO = 4, 1 / 3, 0.015
ALL_SIDES, BROKEN, GAPS, GAP_CELLS = 0.6, 0.25, 0.3, 20
CELL_INK, CELL_PAPER, CELL_GRAIN, CELL_QUALITY = (0, 90), (200, 255), 6.0, 80
PENCIL, PEN = (0.3, 0.6), (0.8, 1.0)  # a line's contrast, relative to the digit's
# A photo of squared paper: its side and the lines' width in pixels, the digit's share, how many squares it is
# high, the levels of paper and ink, how much light is lost, and how the page is turned.
PHOTO, SQUARE_LINE, SQUARED_SHARES, SQUARES = 400, 2.0, (0.3, 0.65), (1.5, 3.0)
SQUARED_PAPER, SQUARED_INK, LIGHT_LOST, TURNED, SQUARED_GRAIN = 215.0, 60.0, (0, 0.5), 4.0, 5.0


def plotted(digit: np.ndarray, inches: float, chance: Chance) -> bytes:
    """Show the digit with matplotlib's imshow, on axes of this height, and save the figure.

    It has axes, with or without ticks and a title, or none, and one of four colour maps. The file is a PNG,
    with an opaque alpha channel, or a JPEG. In half of them the figure's margin is cut off, as Jupyter does.
    """
    figure, axes, image = _figure()
    image.set_data(digit)
    image.set_cmap(str(chance.choice(COLOUR_MAPS)))
    image.set_clim(digit.min(), digit.max())
    image.set_interpolation("nearest" if chance.random() < 3 / 4 else "bilinear")
    look = str(chance.choice(AXES))
    has_ticks = look.startswith("ticks")
    axes.tick_params(left=has_ticks, bottom=has_ticks, labelleft=has_ticks, labelbottom=has_ticks)
    (axes.set_axis_off if look == "nothing" else axes.set_axis_on)()
    axes.set_title(f"Label: {chance.integers(10)}" if look == "ticks and title" else "")
    height = inches / AXES_SHARE
    figure.set_size_inches(height * chance.choice(FIGURE_SHAPES), height)
    file = io.BytesIO()
    kind, box = str(chance.choice(("png", "png", "jpeg"))), "tight" if chance.integers(2) else None
    figure.savefig(file, format=kind, dpi=int(chance.choice(DPI)), bbox_inches=box)
    return file.getvalue()


def in_margin(digit: np.ndarray, widest: float, chance: Chance) -> bytes:
    """Leave margins of another colour, like a screenshot, each up to this share of the image's side."""
    levels = on_paper(enlarged(digit), chance, chance.uniform(*SCREEN_INK), chance.uniform(*SCREEN_PAPER))
    colours = chance.uniform(0, WHITE, (COLOURS_TRIED, 3 if chance.integers(2) else 1)) * np.ones(3)
    colour = colours[np.abs(colours @ LUMINANCE - levels[0, 0]) >= APART][0]
    top, left, bottom, right = np.rint(LARGE * widest * chance.uniform(NARROWEST, 1, 4)).astype(int)
    page = np.tile(colour, (top + LARGE + bottom, left + LARGE + right, 1))
    page[top : top + LARGE, left : left + LARGE] = levels[..., None]
    return file_of(page, "PNG")


def in_cell(digit: np.ndarray, severity: float, chance: Chance) -> bytes:
    """Cut a digit out of a form or a sudoku with the lines of its cell, in pencil or in ink.

    The lines slant by up to `severity` degrees and are up to as many percent of the side thick. Some are
    broken, some sides may have none. At the highest severity a third of the digits touch a line.
    """
    place = 0.5 + chance.uniform(-CELL_OFF, CELL_OFF, 2)
    insets = chance.uniform(*CELL_INSETS, 4)  # left, top, right, bottom
    edges = chance.permutation(4)[: 4 if chance.random() < ALL_SIDES else chance.integers(1, 4)]
    share = chance.uniform(*CELL_SHARES)
    touches = severity >= TOUCHING and chance.random() < TOUCH
    if touches:
        far, axis = divmod(int(edges[0]), 2)
        place[axis] = abs(far - chance.uniform(0, CELL_OFF))
    ink = filling(digit, share, (place[0], place[1]))
    if touches:
        insets[edges[0]] = abs(far - inked(ink)[edges[0]] / LARGE) + INTO
    lines = _cell_lines(insets, edges, severity, chance)
    marks = np.maximum(np.asarray(ink, dtype=np.float32) / WHITE, lines * chance.uniform(*_pen(chance)))
    drawn = Image.fromarray((marks * WHITE).astype(np.uint8))
    side = int(chance.integers(*CELL_SIDES))
    drawn = drawn.resize((side, side), Image.Resampling.BICUBIC)
    levels = on_paper(drawn, chance, chance.uniform(*CELL_INK), chance.uniform(*CELL_PAPER))
    levels += chance.normal(0, chance.uniform(0, CELL_GRAIN), levels.shape)
    if chance.integers(2):
        return file_of(levels, "PNG")
    return file_of(levels, "JPEG", quality=CELL_QUALITY)


def on_squared_paper(digit: np.ndarray, darkness: float, chance: Chance) -> bytes:
    """Photograph a page with squares of 5 mm, whose lines are this many grey levels darker than the paper.

    The digit is one and a half to three squares high, and dark on light. The page is slightly turned, the
    light falls off, a lamp tints it, and there is grain.
    """
    share, turn = chance.uniform(*SQUARED_SHARES), chance.uniform(-TURNED, TURNED)
    ink = filling(digit, share).resize((PHOTO, PHOTO), Image.Resampling.BICUBIC)
    ink = ink.rotate(turn, Image.Resampling.BICUBIC)
    lines = _squares(share * PHOTO / chance.uniform(*SQUARES), turn, chance)
    darker = (SQUARED_PAPER - SQUARED_INK) * np.asarray(ink, dtype=np.float32) / WHITE
    light = 1 - chance.uniform(*LIGHT_LOST) * (across(PHOTO, PHOTO, chance) + 1) / 2
    levels = (SQUARED_PAPER - np.maximum(darker, darkness * lines)) * light
    levels += chance.normal(0, SQUARED_GRAIN, levels.shape)
    return file_of(levels[..., None] * np.array(PHONE_TINT), "JPEG", quality=PHONE_QUALITY)


@functools.cache
def _figure() -> tuple[Figure, Axes, AxesImage]:
    """Return a figure to show digits with: making one takes longer than saving it."""
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    return figure, axes, axes.imshow(np.zeros((SIDE, SIDE)))


def _pen(chance: Chance) -> tuple[float, float]:
    return PENCIL if chance.integers(2) else PEN


def _cell_lines(insets: np.ndarray, edges: np.ndarray, severity: float, chance: Chance) -> np.ndarray:
    """Return the lines of a cell on some of its edges, from 0 to 1: float32 (140, 140).

    `insets` (4,) are the distances from the image's left, top, right and bottom, relative to its side. The
    lines end at the cell's corners or go on to the next cells.
    """
    fine = 2 * LARGE
    sheet = Image.new("L", (fine, fine))
    draw, goes_on = ImageDraw.Draw(sheet), chance.integers(2)
    tilt = np.radians(chance.uniform(-severity, severity) / 2)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    width = max(1, round(fine * chance.uniform(THINNEST, max(severity, THINNEST)) / 100))
    left, top, right, bottom = (*insets[:2], *(1 - insets[2:]))
    corners = np.array([[left, bottom], [left, top], [right, top], [right, bottom]])
    for edge in edges:
        first, last = corners[edge], corners[(edge + 1) % 4]
        middle, along = (first + last) / 2, last - first
        # Each line slants on its own by half of what it may.
        along += np.tan(np.radians(chance.uniform(-severity, severity) / 2)) * along[::-1]
        ends = middle + np.outer((-1, 1), along) * (0.5 + goes_on)
        ends = ((ends - 0.5) @ turn.T + 0.5) * fine
        draw.line(ends.ravel().tolist(), fill=WHITE, width=width)
    lines = np.asarray(sheet.reduce(2), dtype=np.float32) / WHITE
    return lines * _gaps(chance) if chance.random() < BROKEN else lines


def _gaps(chance: Chance) -> np.ndarray:
    """Return 0 where a broken line has gaps, otherwise 1: float32 (140, 140)."""
    kept = chance.random((GAP_CELLS, GAP_CELLS)) >= GAPS
    coarse = Image.fromarray((kept * WHITE).astype(np.uint8))
    return np.asarray(coarse.resize((LARGE, LARGE), Image.Resampling.NEAREST), dtype=np.float32) / WHITE


def _squares(distance: float, degrees: float, chance: Chance) -> np.ndarray:
    """Return the lines of squared paper, turned counterclockwise, from 0 to 1: float64 (400, 400)."""
    angle, start = np.radians(degrees), chance.uniform(0, distance, 2)
    line = np.arange(PHOTO) - PHOTO / 2
    right = line * np.cos(angle) - line[:, None] * np.sin(angle)
    down = line * np.sin(angle) + line[:, None] * np.cos(angle)
    lines = np.zeros((PHOTO, PHOTO))
    for places, shift in ((right, start[0]), (down, start[1])):
        apart = np.abs((places + shift) % distance - distance / 2)  # from the middle between two lines
        np.maximum(lines, np.clip(apart - distance / 2 + SQUARE_LINE / 2 + 0.5, 0, 1), out=lines)
    return lines
