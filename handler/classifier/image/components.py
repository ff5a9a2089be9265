"""Connected components of a small binary image, without a library: numpy, and a loop over runs of ink."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Components(NamedTuple):
    """The 8-connected components of a mask (H, W), in the order of their first pixel, row by row."""

    labels: np.ndarray  # int (H, W): 0 without ink, else the component's number, from 1
    areas: np.ndarray  # int (N + 1,), in pixels; that of number 0 is 0
    boxes: np.ndarray  # int (N + 1, 4): top, left, bottom, right; the last two are not included


def components(mask: np.ndarray) -> Components:
    """Label the components of a boolean mask (H, W)."""
    height, width = mask.shape
    stride = width + 2  # a blank column on either side keeps the runs of two rows apart
    padded = np.zeros((height, stride), np.int8)
    padded[:, 1:-1] = mask
    flat = padded.ravel()
    steps = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, stops = steps[::2], steps[1::2]
    numbers = _numbers(starts, stops, stride)
    count = int(numbers.max(initial=0))
    lengths = stops - starts
    labels = np.zeros(height * stride, np.int64)
    labels[np.flatnonzero(flat)] = np.repeat(numbers, lengths)
    rows, lefts = np.divmod(starts, stride)
    boxes = np.zeros((count + 1, 4), np.int64)
    boxes[1:, :2] = height + width
    for column, values, better in (
        (0, rows, np.minimum),
        (1, lefts - 1, np.minimum),
        (2, rows + 1, np.maximum),
        (3, lefts - 1 + lengths, np.maximum),
    ):
        better.at(boxes[:, column], numbers, values)
    areas = np.bincount(numbers, lengths, count + 1).astype(np.int64)
    return Components(labels.reshape(height, stride)[:, 1:-1], areas, boxes)


def _numbers(starts: np.ndarray, stops: np.ndarray, stride: int) -> np.ndarray:
    """Return each run's component, from 1, in the order of the components' first runs."""
    # A run touches those of the next row that begin before it ends and end after it begins, corners included.
    first = np.searchsorted(stops, starts + stride, "left").tolist()
    last = np.searchsorted(starts, stops + stride, "right").tolist()
    parents = list(range(len(first)))
    for run, (low, high) in enumerate(zip(first, last, strict=True)):
        for below in range(low, high):
            one, other = run, below
            while parents[one] != one:
                one = parents[one]
            while parents[other] != other:
                other = parents[other]
            parents[max(one, other)] = min(one, other)
    # A parent comes before its runs, so one pass finds every root.
    numbers: list[int] = []
    count = 0
    for run, parent in enumerate(parents):
        count += parent == run
        numbers.append(count if parent == run else numbers[parent])
    return np.array(numbers, np.int64)
