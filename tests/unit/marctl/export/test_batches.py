"""A model must answer an image the same in any batch."""

import numpy as np
import pytest
import torch

from bench.load.images import opened
from classifier.contract import Contract
from classifier.runtime.torch import as_function
from marctl.errors import UserError
from marctl.export.batches import try_batches
from tests.support.lookup import contract, image, table_of

ROWS = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [0.0, 9.0, 1.0]]
CONTRACT = Contract.from_config(contract(3))
TABLE = torch.from_numpy(table_of(ROWS))
NORM = torch.nn.BatchNorm1d(3, track_running_stats=False).eval()
INFLUENCED = {
    "softmax-over-the-batch": lambda rows: rows.log_softmax(0),
    "statistics-of-the-batch": lambda rows: NORM(rows).detach() if len(rows) > 1 else rows,
    "scale-of-the-batch": lambda rows: rows / rows.abs().max().clamp(min=0.01),
    "those-before": lambda rows: rows.cumsum(0),
    "those-behind": lambda rows: rows.flip(0).cumsum(0).flip(0),
    "bright-beside-dark": lambda rows: rows + (rows.sum(1).amax(0) > 50),
    "from-a-size-on": lambda rows: rows + float(len(rows) == 5),
    "of-a-full-form": lambda rows: rows + float(len(rows) > 60),
    "last-one": lambda rows: rows + torch.eye(len(rows))[-1][:, None] * (len(rows) > 1),
    "rows-in-another-order": lambda rows: rows.roll(1, 0),
    "a-little-at-odd-places": lambda rows: rows + 1e-4 * (torch.arange(len(rows)) % 2)[:, None],
}


def tried(model, batch_size=5):
    """Check a function of the table's rows, with the first image only."""
    images = CONTRACT.normalize(np.asarray(opened(image(0)))[None, ..., None])
    answer = as_function(lambda x: model(x.flatten(1) @ TABLE))
    try_batches(answer, CONTRACT, images, answer(images), batch_size)


@pytest.mark.parametrize("case", INFLUENCED)
def test_images_that_influence_each_other_are_found(case):
    """One golden image is enough, at any position, even if only one batch size is affected."""
    with pytest.raises(
        UserError, match=r"in a batch of \d+ the model answers an image differently than alone: "
    ):
        tried(INFLUENCED[case])


def test_rows_of_their_own_are_found_sound():
    """Also if made-up images give NaN, and if another batch size sums in another order."""
    tried(lambda rows: rows.log_softmax(1))
    tried(lambda rows: torch.where(rows.sum(1, keepdim=True) > 50, torch.nan, rows))
    tried(lambda rows: rows * (1 + 1e-6 * len(rows) / 64))


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda rows: rows if len(rows) < 9 else rows @ TABLE, r"fails on a batch of 64 \(RuntimeError: .*"),
        (lambda rows: rows[:32], "answers a batch of 64 with 32 rows"),
        (lambda rows: rows if len(rows) != 5 else rows[:1], "answers a batch of 5 with 1 rows"),
    ],
    ids=["fails", "too-few", "batch-size"],
)
def test_batches_that_fail_are_found(model, sentence):
    """The error names the batch size and what a worker sends."""
    with pytest.raises(UserError, match=f"the model {sentence}; a worker .* up to 64 images .* of any size$"):
        tried(model)
