"""Connected components of ink, found row by row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from classifier.image.components import components


def flooded(mask: np.ndarray) -> np.ndarray:
    """Label a mask pixel by pixel, the slow and obvious way."""
    labels = np.zeros(mask.shape, int)
    for first in zip(*mask.nonzero(), strict=True):
        if labels[first]:
            continue
        number, waiting = labels.max() + 1, [first]
        while waiting:
            y, x = waiting.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not labels[y, x]:
                labels[y, x] = number
                waiting += [(y + down, x + across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    return labels


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_components_are_those_of_a_flood(mask):
    """Labels, areas and boxes are right for any mask; corners connect."""
    found, expected = components(mask), flooded(mask)
    assert np.array_equal(found.labels, expected)
    assert found.areas.tolist() == [
        0,
        *(int((expected == number).sum()) for number in range(1, expected.max() + 1)),
    ]
    for number in range(1, expected.max() + 1):
        rows, columns = (expected == number).nonzero()
        box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        assert found.boxes[number].tolist() == box
