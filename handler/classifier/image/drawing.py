"""Find the drawing in an image: its ink, without the frame, lines, margin or shadow around it.

Everything is computed on a small grid, nearly all of it in whole numbers: any language gets the same result.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from .components import Components, components

WHITE = 255
# Ink differs from the paper by at least this many percent of the largest difference. That is enough for ink
# in a shadow, and too much for the lines of most paper.
INK = 35
VISIBLE = 24  # grey levels: if the largest difference is smaller, nothing is drawn
EVEN = 12  # grey levels: if those along the edge differ by no more, the light is even
SOFT = 12  # pixels: if the levels need more to change by the contrast, that is light, and no ink
LEAST = 5  # pixels: a smaller part of the grid is not examined

# A frame is a component that covers the sides of its box.
BAND = 1 / 12  # how far its lines may be from straight, as a share of the box
SIDE, SIDES = 0.8, 0.9  # the share of each side that it covers, and of all four on average
CORNERS = 3  # of the four, which it covers
LEAST_BOX = 0.45  # the least size of the box, as a share of the grid,
LEAST_FRAME = 8  # and in pixels
FILLED = 0.55  # if more of the box is covered, it is a panel: paper of another colour
FOUR = 4  # edges of the grid that a margin touches
FRAMES = 3  # how often a frame may lie within another one

# A line runs along an edge of the grid, perhaps not quite straight.
NEAR = 0.3  # its greatest distance from the edge, as a share of the grid
COVERS, WHOLE = 0.85, 0.97  # the share of the edge that a line covers, and that a line without doubt covers
LEAVES = 0.6  # a row of which less is covered is behind the line
# What is connected with a line is part of the drawing, and so is the line: a 7 has one along its top. Unless
# there are so many lines, and they are thin, and little is covered right behind them.
LINES, THIN, BEHIND = 3, 0.15, 0.4

# Which components belong together.
FROM_THE_MIDDLE = 0.6  # how much less a component weighs at the edge
SPECK = 0.04  # a smaller share of the largest component is a speck
# How far a stroke may be from the rest, as a share of the drawing's longer side. At the edge of the image it
# is more likely a piece of something else, unless it has this share of the largest component's area.
GAP, GAP_AT_EDGE, PIECE = 0.2, 0.12, 0.5

MOST_CROSSINGS = 7  # how often a drawing's strokes leave the image
# What covers more than this of the image, more than this of its edge, and CORNERS, is paper.
BOLD, BOLD_EDGE = 0.4, 0.5

# A shadow lies along more of the edge than SHADED_EDGE. Either there are lighter and darker parts than the
# paper, or most of the ink is pale: less than FULL_INK times as strong as the weakest.
SHADED_EDGE, MIXED, FULL_INK, PALE_EDGE, PALE = 0.1, 0.1, 2, 0.8, 0.7
STROKE = 8  # strokes may be a quarter of the grid wide: twice an eighth


class Box(NamedTuple):
    """A part of the grid; bottom and right are not included."""

    top: int
    left: int
    bottom: int
    right: int


class Drawing(NamedTuple):
    """What is drawn on a grid."""

    part: Box  # where the drawing is: what lies outside is a frame, or around one
    ink: np.ndarray  # bool, of that part
    # bool, of that part: what is neither paper nor the drawing's; None if there is nothing
    others: np.ndarray | None
    paper: np.ndarray | np.int16  # the grey level of the paper, everywhere or at each place of that part
    is_dark: bool  # whether the ink is darker than the paper


class _Reading(NamedTuple):
    part: Box
    ink: np.ndarray
    others: np.ndarray | None
    level: int  # of the paper
    is_dark: bool
    strength: np.ndarray  # how far each level is from the paper's, towards the ink's
    least: int  # strength of ink


def find(levels: np.ndarray) -> Drawing | None:
    """Find the drawing on a grid of grey levels, uint8 (H, W); None if there is none."""
    even, light = _in_even_light(levels)
    reading = _read(even)
    if reading is None or (light is not None and _is_soft(even, reading)):
        return None
    if reading.part != Box(0, 0, *levels.shape) or not _is_shaded(reading):
        return None if _is_pattern(reading) else _drawing(reading, light)
    # Without the shadow, dark ink stands out on light paper, or light ink on dark.
    dark, light_ink = _without_shadow(levels), _without_shadow(WHITE - levels)
    if dark is not None and (light_ink is None or dark[0].least >= light_ink[0].least):
        return _drawing(*dark)
    if light_ink is None:
        return None
    reading, paper = light_ink
    return _drawing(reading._replace(is_dark=False), WHITE - paper)


def _is_pattern(reading: _Reading) -> bool:
    """Return whether the ink is that of stripes, noise or a page, which goes on beyond the edges."""
    if reading.others is not None and int(reading.others.sum()) > int(reading.ink.sum()):
        return True
    ink = reading.ink
    around = np.concatenate(
        [ink[0], ink[1:, -1], ink[-1, -2::-1], ink[-2::-1, 0]]
    )  # back to the first corner
    return int((around[1:] > around[:-1]).sum()) > MOST_CROSSINGS


def _is_soft(levels: np.ndarray, reading: _Reading) -> bool:
    """Return whether the levels change so slowly that this is light, and no ink."""
    steepest = max(int(np.abs(np.diff(levels, axis=axis)).max(initial=0)) for axis in (0, 1))
    return SOFT * steepest < int(reading.strength.max())


def _without_shadow(levels: np.ndarray) -> tuple[_Reading, np.ndarray] | None:
    """Find dark ink on paper in a shadow; return it with the paper's levels."""
    paper = _paper_around(levels)
    reading = _read(np.minimum(levels.astype(np.int32) * WHITE // np.maximum(paper, 1), WHITE))
    if reading is None or not reading.is_dark or _at_edge(reading.ink) > SHADED_EDGE:
        return None
    top, left, bottom, right = reading.part
    contrast = (paper - levels)[top:bottom, left:right][reading.ink].max()
    return reading._replace(level=0, least=int(contrast)), paper.astype(np.int16)


def _drawing(reading: _Reading, light: np.ndarray | None) -> Drawing:
    top, left, bottom, right = reading.part
    level = np.int16(reading.level)
    paper = level if light is None else light[top:bottom, left:right] + level
    return Drawing(reading.part, reading.ink, reading.others, paper, reading.is_dark)


def _in_even_light(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the levels, int16 (H, W), without what light from one side does to them; and what it does.

    The light is a plane through the levels that are nearest to the median, by least squares; None if the edge
    shows none.
    """
    height, width = levels.shape
    edge = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    if int(edge.max()) - int(edge.min()) <= EVEN:  # as in most drawings
        return levels.astype(np.int16), None
    apart = np.abs(levels.astype(np.int16) - _median(levels))
    kept = (apart <= max(2 * VISIBLE, int(apart.max()) * INK // 100)).astype(np.int64)
    across, down = _places(height, width)
    values = levels * kept
    in_columns, in_rows = kept.sum(axis=0), kept.sum(axis=1)
    count, sum_x, sum_y = int(in_rows.sum()), int(in_columns @ across), int(in_rows @ down)
    sum_xx, sum_yy = int(in_columns @ across**2), int(in_rows @ down**2)
    sum_xy = int((kept @ across) @ down)
    sum_v, sum_xv, sum_yv = (
        int(values.sum()),
        int(values.sum(axis=0) @ across),
        int(values.sum(axis=1) @ down),
    )
    # Whole numbers up to here. The normal equations, with the means taken out:
    xx, yy = count * sum_xx - sum_x * sum_x, count * sum_yy - sum_y * sum_y
    xy = count * sum_xy - sum_x * sum_y
    xv, yv = count * sum_xv - sum_x * sum_v, count * sum_yv - sum_y * sum_v
    determinant = float(xx) * float(yy) - float(xy) * float(xy)
    if determinant <= 0:
        return levels.astype(np.int16), None
    right = (float(xv) * float(yy) - float(yv) * float(xy)) / determinant
    below = (float(yv) * float(xx) - float(xv) * float(xy)) / determinant
    light = np.floor(right * across + (below * down)[:, None] + 0.5).astype(np.int16)
    return levels - light, light


def is_even(levels: np.ndarray) -> bool:
    """Return whether the whole edge has one level."""
    edge = levels[:: max(1, len(levels) - 1)].tobytes() + levels[:, :: max(1, levels.shape[1] - 1)].tobytes()
    return edge == edge[: levels.itemsize] * (len(edge) // levels.itemsize)


def _read(levels: np.ndarray, contrast: int = 0, depth: int = 0) -> _Reading | None:
    """Find ink on evenly lit paper; `contrast` is that of what lies around this part."""
    reading = _all_ink(levels)
    most = 0 if reading is None else int(reading.strength.max())
    if reading is None or 100 * most < INK * contrast:
        return None
    if _is_plain(reading.ink):
        return reading
    if _is_paper(reading.ink):
        reading = _inverted(reading, most)
    parts = components(reading.ink)
    if depth < FRAMES:
        for part in _insides(reading.ink, parts):
            within = levels[part.top : part.bottom, part.left : part.right]
            found = _read(within, most, depth + 1)
            if found is not None:
                return found._replace(part=_moved(found.part, part.top, part.left))
    ink, others = _belonging(parts)
    return reading._replace(ink=ink, others=others)


def _all_ink(levels: np.ndarray) -> _Reading | None:
    """Find everything that differs enough from the paper, to one side."""
    level = int(levels[0, 0]) if is_even(levels) else _most_common(levels)
    strength = levels - level
    is_dark = int(strength.max()) < -int(strength.min())
    if is_dark:
        strength = -strength
    most = int(strength.max())
    if most < VISIBLE:
        return None
    least = -(-INK * most // 100)
    return _Reading(Box(0, 0, *levels.shape), strength >= least, None, level, is_dark, strength, least)


def _is_paper(ink: np.ndarray) -> bool:
    """Return whether what was taken for ink is the paper around a bold drawing that fills the image."""
    height, width = ink.shape
    corners = int(ink[:: height - 1 or 1, :: width - 1 or 1].sum())
    return bool(ink.sum() > BOLD * ink.size) and _at_edge(ink) > BOLD_EDGE and corners >= CORNERS


def _inverted(reading: _Reading, most: int) -> _Reading:
    """Return a reading, with ink of that strength, with ink and paper the other way round."""
    strength, level = most - reading.strength, reading.level + (-most if reading.is_dark else most)
    return reading._replace(
        ink=strength >= reading.least, level=level, is_dark=not reading.is_dark, strength=strength
    )


def _moved(box: Box, down: int, right: int) -> Box:
    return Box(box.top + down, box.left + right, box.bottom + down, box.right + right)


def _is_plain(mask: np.ndarray) -> bool:
    """Return whether all ink is in one place and neither a frame nor a line along an edge can be in it."""
    sides = []
    for axis in (1, 0):
        used = np.flatnonzero(mask.any(axis=axis))
        first, last = int(used[0]), int(used[-1]) + 1
        if len(used) < last - first or last - first >= COVERS * mask.shape[1 - axis]:
            return False
        sides.append((first, last))
    (top, bottom), (left, right) = sides
    if bottom - top < LEAST_BOX * mask.shape[0] or right - left < LEAST_BOX * mask.shape[1]:
        return True
    box = mask[top:bottom, left:right]
    tall, wide = max(1, int(box.shape[0] * BAND)), max(1, int(box.shape[1] * BAND))
    # A frame covers all four.
    return any(
        int(band.any(axis=axis).sum()) < SIDE * box.shape[1 - axis]
        for axis, band in ((0, box[-tall:]), (1, box[:, :wide]), (0, box[:tall]), (1, box[:, -wide:]))
    )


def _insides(mask: np.ndarray, parts: Components) -> Iterator[Box]:
    """Yield what is inside of frames, panels and lines, the most likely first."""
    height, width = mask.shape
    sizes = parts.boxes[:, 2:] - parts.boxes[:, :2]
    large = (
        (sizes[:, 0] >= LEAST_BOX * height)
        & (sizes[:, 1] >= LEAST_BOX * width)
        & (sizes.min(axis=1) >= LEAST_FRAME)
    )
    for number in np.flatnonzero(large).tolist():
        top, left, bottom, right = parts.boxes[number].tolist()
        touched = (top == 0) + (left == 0) + (bottom == height) + (right == width)
        found = _inside_frame(parts.labels[top:bottom, left:right] == number, touched)
        if found is not None:
            yield _moved(found, top, left)
    found = _between_lines(mask, parts)
    if found is not None:
        yield found


def _inside_frame(shape: np.ndarray, touched: int) -> Box | None:
    """Return what is inside of a component of this shape, if it is a frame or a panel."""
    height, width = shape.shape
    tall, wide = max(1, int(height * BAND)), max(1, int(width * BAND))
    bands = (shape[:tall], shape[-tall:], shape[:, :wide].T, shape[:, -wide:].T)
    covered = [float(band.any(axis=0).mean()) for band in bands]
    corners = sum(
        bool(band[:, at].any()) for band in bands[:2] for at in (slice(0, wide), slice(width - wide, width))
    )
    if min(covered) < SIDE or sum(covered) < SIDES * len(covered) or corners < CORNERS:
        return None
    if shape.mean() > FILLED:
        if touched <= 1:
            return Box(1, 1, height - 1, width - 1)
        if touched < FOUR:
            return None
    rows, columns = shape.mean(axis=1), shape.mean(axis=0)
    top, bottom = _first_free(rows), height - _first_free(rows[::-1])
    left, right = _first_free(columns), width - _first_free(columns[::-1])
    if bottom - top < LEAST or right - left < LEAST or max(rows[top], rows[bottom - 1]) > LEAVES:
        return None
    return Box(top, left, bottom, right) if max(columns[left], columns[right - 1]) <= LEAVES else None


def _first_free(covered: np.ndarray) -> int:
    """Return the first line behind those of a frame."""
    count = len(covered)
    free = 0
    for line in range(count // 3):
        if covered[line] > LEAVES:
            free = line + 1
        elif line > count / 8:
            break
    return free


class _Line(NamedTuple):
    depth: int  # from the edge to the first row without it; 0 if there is none
    covers: float
    is_sharp: bool
    numbers: frozenset[int]


def _between_lines(mask: np.ndarray, parts: Components) -> Box | None:
    """Return what is between lines along the edges, if there are any and the drawing is not made of them."""
    height, width = mask.shape
    labels = parts.labels
    lines = [
        _line(mask, labels),
        _line(mask[::-1], labels[::-1]),
        _line(mask.T, labels.T),
        _line(mask.T[::-1], labels.T[::-1]),
    ]
    top, bottom, left, right = (line.depth for line in lines)
    if top == bottom == left == right == 0:
        return None
    inside = Box(top, left, height - bottom, width - right)
    if inside.bottom - inside.top < LEAST or inside.right - inside.left < LEAST:
        return None
    rest = labels[inside.top : inside.bottom, inside.left : inside.right]
    areas = np.bincount(rest.ravel())
    areas[0] = 0
    if not areas.any():
        return None
    hanging = frozenset().union(*(line.numbers for line in lines))
    own = max((int(area) for number, area in enumerate(areas) if number not in hanging), default=0)
    there = [line for line in lines if line.depth]
    edges = (rest[0], rest[-1], rest[:, 0], rest[:, -1])
    if len(there) < LINES and all(line.depth or edge.any() for line, edge in zip(lines, edges, strict=True)):
        return None  # the drawing fills the image, and these are strokes of it
    are_certain = len(there) >= LINES and all(line.is_sharp and line.covers >= WHOLE for line in there)
    return inside if own * 2 >= areas.max() or are_certain else None


def _line(mask: np.ndarray, labels: np.ndarray) -> _Line:
    """Look for a line along the first rows."""
    count = len(mask)
    reach = min(count, max(2, int(count * NEAR)))
    wide = mask[:reach].copy()  # a line may lie a little aslant
    wide[1:] |= mask[: reach - 1]
    wide |= mask[1 : reach + 1] if count > reach else False
    covered = wide.mean(axis=1)
    rows = np.flatnonzero(covered >= COVERS)
    if not len(rows):
        return _Line(0, 0.0, False, frozenset())
    depth = int(rows[0])
    while depth < reach and covered[depth] >= LEAVES:
        depth += 1
    after = float(mask[min(depth + 1, count - 1)].mean())
    numbers = frozenset(np.unique(labels[:depth][mask[:depth]]).tolist())
    return _Line(depth, float(covered[:depth].max()), after <= BEHIND and depth <= THIN * count, numbers)


def _belonging(parts: Components) -> tuple[np.ndarray, np.ndarray | None]:
    """Return which pixels are the drawing's, and which are other things', or None if there are no others."""
    height, width = parts.labels.shape
    areas: list[int] = parts.areas.tolist()
    boxes: list[list[int]] = parts.boxes.tolist()
    numbers = range(1, len(areas))

    def weight(number: int) -> float:
        top, left, bottom, right = boxes[number]
        away = float(max(abs((top + bottom) / height - 1), abs((left + right) / width - 1)))
        return areas[number] * (1 - FROM_THE_MIDDLE * away)

    main = max(numbers, key=weight)
    chosen, box = {main}, boxes[main]
    waiting = [
        number for number in numbers if number != main and areas[number] >= max(2, SPECK * areas[main])
    ]
    visible = {main, *waiting}
    size = max(box[2] - box[0], box[3] - box[1])
    before = -1
    while len(waiting) != before:
        before = len(waiting)
        for number in list(waiting):
            top, left, bottom, right = boxes[number]
            gap = max(top - box[2], box[0] - bottom, left - box[3], box[1] - right, 0)
            at_edge = top == 0 or left == 0 or bottom == height or right == width
            if gap > (GAP_AT_EDGE if at_edge else GAP) * size:
                continue
            if at_edge and gap > 0 and areas[number] < PIECE * areas[main]:
                continue
            chosen.add(number)
            waiting.remove(number)
            box = [min(box[0], top), min(box[1], left), max(box[2], bottom), max(box[3], right)]
    flags = np.zeros(len(areas), bool)
    flags[list(chosen)] = True
    ink = flags[parts.labels]
    if chosen == visible:
        return ink, None
    flags[:] = False
    flags[list(visible - chosen)] = True
    return ink, flags[parts.labels]


def _at_edge(ink: np.ndarray) -> float:
    """Return which share of the edge is inked."""
    height, width = ink.shape
    inked = int(ink[0].sum()) + int(ink[-1].sum()) + int(ink[:, 0].sum()) + int(ink[:, -1].sum())
    return float(inked / (2 * (height + width)))


def _is_shaded(reading: _Reading) -> bool:
    """Return whether what was taken for ink is more likely a shadow, with ink in it."""
    least, strength = reading.least, reading.strength
    opposite = strength <= -least
    if _at_edge(reading.ink | opposite) <= SHADED_EDGE:
        return False
    if opposite.sum() > MIXED * reading.ink.sum():
        return True
    edge = np.concatenate([strength[0], strength[-1], strength[:, 0], strength[:, -1]])
    pale = (edge >= least) & (edge < FULL_INK * least)
    all_pale = int(((strength < FULL_INK * least) & reading.ink).sum())
    return int(pale.sum()) > PALE_EDGE * int((edge >= least).sum()) and all_pale > PALE * int(
        reading.ink.sum()
    )


def _paper_around(levels: np.ndarray) -> np.ndarray:
    """Return the levels, int32 (H, W), without dark strokes up to a quarter of the grid wide: a closing."""
    reach = max(2, max(levels.shape) // STROKE)
    closed = levels.astype(np.int32)
    for better in (np.maximum, np.minimum):
        for axis in (0, 1):
            edge = [(reach, reach) if axis == own else (0, 0) for own in (0, 1)]
            padded, length = np.pad(closed, edge, mode="edge"), closed.shape[axis]
            closed = padded.take(range(length), axis)
            for shift in range(1, 2 * reach + 1):
                closed = better(closed, padded.take(range(shift, shift + length), axis))
    return closed


def _median(levels: np.ndarray) -> int:
    """Return the lower median of whole numbers."""
    flat = levels.ravel()
    middle = (flat.size - 1) // 2
    return int(np.partition(flat, middle)[middle])


def _most_common(levels: np.ndarray) -> int:
    """Return the median of the dark or of the light levels, whichever are more.

    The median of all may be neither the paper's nor the ink's.
    """
    lights = levels > (int(levels.min()) + int(levels.max())) // 2
    return _median(levels[lights if 2 * int(lights.sum()) > levels.size else ~lights])


@cache
def _places(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of columns and rows, in half pixels from the middle."""
    return np.arange(width) * 2 + 1 - width, np.arange(height) * 2 + 1 - height
