"""Scale and centre a drawing as MNIST's authors did with their digits.

The image is first resized as a whole. If its ink does not have the size and place that the contract requires,
the part of the image around the ink is resized again, closer or from further away. So a digit in a corner, a
small one and one on a sheet that is not square are read like one in the middle.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

LOOKS = 3
# Ink differs from the background by at least this share of the largest difference: ink in a shadow still
# does, and the lines of most paper are fainter.
INK = 0.35
# Nothing is drawn if the largest difference is below this, in grey levels.
VISIBLE = 24
# Ink on more than this share of the edge, or on this many of the four edges, means that there is no plain
# background: a shadow, a table, noise, squares. Such an image stays as it is.
MOST_OF_EDGE = 0.4
EDGES = 3
# In the model's pixels: a digit's size and the place of its ink are not corrected for less than this.
SIZE_TOLERANCE, PLACE_TOLERANCE = 1.5, 1.5
# Ratio between the aspect ratios of a window and of the model's input beyond which the image is squeezed.
SQUEEZE_TOLERANCE = 1.05
# The image is reduced to this many pixels a side before the closer looks, which limits their cost.
MOST_PIXELS = 448


class Ink(NamedTuple):
    """A drawing, in pixels of the grid: the size of its bounding box, and the mean place of its ink."""

    width: int
    height: int
    x: float
    y: float
    paper: float  # the grey level of the background


class Window(NamedTuple):
    """A part of the image, in its pixels; it may extend beyond the edges."""

    left: int
    top: int
    width: int
    height: int


class Grid(NamedTuple):
    """The places of a grid's pixels, as indices and in half pixels from its middle, and its edge."""

    columns: np.ndarray  # int (W,)
    rows: np.ndarray  # int (H,)
    across: np.ndarray  # float64 (W,)
    down: np.ndarray  # float64 (H, 1)
    edge: np.ndarray  # indices of the flattened grid, int (N,)
    edge_across: np.ndarray  # float64 (N,), like the next
    edge_down: np.ndarray
    squares_across: float  # the sum of the squares of the edge's places
    squares_down: float


def centred(image: Image.Image, size: tuple[int, int], ink_side: int) -> np.ndarray:
    """Return a grey image as uint8 (H, W), with the longer side of its drawing `ink_side` pixels long.

    The mean place of the ink is in the middle. `size` is (width, height). If nothing is drawn, or too much of
    the edge is inked, the whole image is resized instead.
    """
    seen = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    window = Window(0, 0, *image.size)
    for look in range(LOOKS - 1):
        ink = find(seen)
        if ink is None or _fits(ink, window, size, ink_side):
            break
        if look == 0:
            image = _reduced(image)
            window = Window(0, 0, *image.size)
        window = _around(ink, window, size, ink_side, image.size)
        seen = _look(image, window, size, ink.paper)
    return seen


def find(seen: np.ndarray) -> Ink | None:
    """Find the drawing on a sheet, uint8 (H, W), lit evenly or from one side; None if there is none.

    Only integer sums and the same steps for each pixel are used: every language gets the same result.
    """
    height, width = seen.shape
    grid = _grid(height, width)
    flat, edge = _in_even_light(seen, grid)
    middle = len(edge) // 2
    paper = float(edge[middle])
    apart = np.abs(flat - paper).ravel()
    farthest = int(apart.argmax())
    most = float(apart[farthest])
    if most < VISIBLE:
        return None
    inked = (apart >= INK * most).reshape(height, width)
    columns, rows = inked.sum(axis=0), inked.sum(axis=1)
    edges = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    if sum(map(bool, edges)) >= EDGES or sum(edges) > MOST_OF_EDGE * len(edge):
        return None
    count = int(rows.sum())
    columns_used, rows_used = columns.nonzero()[0], rows.nonzero()[0]
    # Ink that reaches the edge darkens or lightens it: the background is at the other end of its levels.
    dark = float(flat.ravel()[farthest]) < paper
    return Ink(
        int(columns_used[-1] - columns_used[0]) + 1,
        int(rows_used[-1] - rows_used[0]) + 1,
        int(columns @ grid.columns) / count + 0.5,
        int(rows @ grid.rows) / count + 0.5,
        float(edge[middle + middle // 2 if dark else middle // 2]),
    )


def _in_even_light(seen: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels (H, W) without the gradient of the light, and those of the edge, sorted."""
    edge = seen.ravel()[grid.edge]
    if edge.tobytes() == edge[:1].tobytes() * len(edge):  # as in most drawings
        return seen, edge
    levels, edge = seen.astype(np.float64), edge.astype(np.float64)
    across = float(edge @ grid.edge_across) / grid.squares_across
    down = float(edge @ grid.edge_down) / grid.squares_down
    flat = levels - across * grid.across - down * grid.down
    return flat, np.sort(flat.ravel()[grid.edge])


@cache
def _grid(height: int, width: int) -> Grid:
    columns, rows = np.arange(width), np.arange(height)
    across, down = columns * 2.0 + 1 - width, rows[:, None] * 2.0 + 1 - height
    edge = np.flatnonzero((abs(across) == width - 1) | (abs(down) == height - 1))
    edge_across, edge_down = (places.ravel()[edge] for places in np.broadcast_arrays(across, down))
    squares = (float(places @ places) for places in (edge_across, edge_down))
    return Grid(columns, rows, across, down, edge, edge_across, edge_down, *squares)


def _fits(ink: Ink, window: Window, size: tuple[int, int], ink_side: int) -> bool:
    width, height = size
    squeezed = (window.width * height) / (window.height * width)
    return (
        abs(max(ink.width, ink.height) - ink_side) <= SIZE_TOLERANCE
        and abs(ink.x - width / 2) <= PLACE_TOLERANCE
        and abs(ink.y - height / 2) <= PLACE_TOLERANCE
        and max(squeezed, 1 / squeezed) <= SQUEEZE_TOLERANCE
    )


def _around(ink: Ink, window: Window, size: tuple[int, int], ink_side: int, image: tuple[int, int]) -> Window:
    """Return the window that centres the ink and gives it the right size.

    Its middle stays within the image: what was taken for ink may be background beyond an edge.
    """
    width, height = size
    pixel_width, pixel_height = window.width / width, window.height / height
    scale = max(ink.width * pixel_width, ink.height * pixel_height) / ink_side
    x = min(max(window.left + ink.x * pixel_width, 0.0), float(image[0]))
    y = min(max(window.top + ink.y * pixel_height, 0.0), float(image[1]))
    return Window(
        _rounded(x - scale * width / 2),
        _rounded(y - scale * height / 2),
        max(_rounded(scale * width), 2),
        max(_rounded(scale * height), 2),
    )


def _look(image: Image.Image, window: Window, size: tuple[int, int], paper: float) -> np.ndarray:
    """Resize a part of the image to `size`, and fill what is beyond the edges with background."""
    columns, of_width = _within(window.left, window.width, image.width, size[0])
    rows, of_height = _within(window.top, window.height, image.height, size[1])
    part_size = (columns.stop - columns.start, rows.stop - rows.start)
    part = image.crop((of_width.start, of_height.start, of_width.stop, of_height.stop))
    seen = np.full(size[::-1], _rounded(min(max(paper, 0.0), 255.0)), np.uint8)
    seen[rows, columns] = np.asarray(part.resize(part_size, Image.Resampling.BILINEAR))
    return seen


def _within(start: int, length: int, limit: int, cells: int) -> tuple[slice, slice]:
    """Return which of the grid's cells are within the image, and the pixels that they cover."""
    first, last = max(start, 0), min(start + length, limit)
    from_cell = min(_rounded((first - start) * cells / length), cells - 1)
    to_cell = max(_rounded((last - start) * cells / length), from_cell + 1)
    return slice(from_cell, to_cell), slice(first, last)


def _reduced(image: Image.Image) -> Image.Image:
    longer = max(image.size)
    if longer <= MOST_PIXELS:
        return image
    size = [max(1, _rounded(length * MOST_PIXELS / longer)) for length in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BILINEAR)


def _rounded(number: float) -> int:
    """Round halves up, unlike Python's own function."""
    return math.floor(number + 0.5)
