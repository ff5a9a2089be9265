"""A model with a fixed batch size answers batches of any size."""

import numpy as np
import pytest

from classifier.runtime.fixed_batch import FixedBatch


@pytest.mark.parametrize("size", [1, 2, 5])
def test_parts_are_full_and_in_order(size):
    """The model gets only batches of its own size, and each row is answered once."""
    seen = []

    def model(batch):
        seen.append(len(batch))
        return batch[:, 0, 0] * 2

    for count in (1, 4, 5, 11):
        batch = np.arange(count * 3, dtype=np.float32).reshape(count, 1, 1, 3)
        np.testing.assert_array_equal(FixedBatch(model, size)(batch), batch[:, 0, 0] * 2)
    assert set(seen) == {size}
