"""Check that a model answers an image the same in any batch."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, TypeVar

import numpy as np

from classifier import golden
from classifier.protocols.body import MOST_IMAGES
from marctl.errors import UserError

Model = Callable[[np.ndarray], np.ndarray]  # float32 (N, C, H, W) to outputs (N, labels)
Batch = TypeVar("Batch", bound=Sized)  # an array or a tensor

# golden.TOLERANCE is for the outputs of real images; those of made-up ones may be of any size. If images
# influence each other, outputs differ by far more than this share of the largest one.
SHARE = 1e-3


def try_batches(
    model: Model, contract: Any, images: np.ndarray, expected: np.ndarray, batch_size: int
) -> dict[str, np.ndarray]:
    """Run a model on golden images (N, C, H, W) in batches of sizes that a worker may use.

    Each image must get its expected outputs (N, labels), whatever else is in its batch. Returns the outputs
    (labels,) for made-up images by name; they may be infinite or NaN. Raises UserError.
    """
    made_up = _made_up(contract.shape)
    others = contract.normalize(np.stack(list(made_up.values())))
    alone = np.concatenate([answered(model, one[None], _too_few) for one in others])
    for size in sorted({1, 2, 3, batch_size, MOST_IMAGES}):
        places = np.arange(size)
        for first in (0, 1):  # so that each place in the batch has a golden image once
            is_golden = places % 2 == first
            ours, theirs = (places[which] // 2 for which in (is_golden, ~is_golden))
            ours, theirs = ours % len(images), theirs % len(others)
            batch = np.empty((size, *contract.shape), np.float32)
            batch[is_golden], batch[~is_golden] = images[ours], others[theirs]
            outputs = answered(model, batch, _too_few)
            _compare(outputs[is_golden], expected[ours], golden.TOLERANCE, size)
            with np.errstate(invalid="ignore"):  # the outputs for made-up images may be infinite or NaN
                scale = np.abs(alone[theirs]).max(axis=1, initial=1, keepdims=True)
                _compare(outputs[~is_golden] / scale, alone[theirs] / scale, SHARE, size)
    return dict(zip(made_up, alone, strict=True))


def _made_up(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Return images, uint8 (H, W, C), that differ strongly, by name."""
    channels, height, width = shape
    size = (height, width, channels)
    noise, dark, light = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    black = np.zeros(size, np.uint8)
    return {
        "noise": noise,
        "a black image": black,
        "dark noise": dark // 8,
        "a white image": ~black,
        "light noise": ~(light // 8),
    }


def answered(model: Callable[[Batch], Batch], batch: Batch, refused: Callable[[str], UserError]) -> Batch:
    """Return a model's outputs for a batch. Raises what `refused` makes of the words for its fault."""
    try:
        outputs = model(batch)
    except Exception as error:  # the model's own code
        what = f"{type(error).__name__}: {first_line(error)}"
        raise refused(f"fails on a batch of {len(batch)} ({what})") from error
    if len(outputs) != len(batch):
        raise refused(f"answers a batch of {len(batch)} with {len(outputs)} rows")
    return outputs


def first_line(error: BaseException) -> str:
    """Return an error's first line, without the pages that torch adds."""
    return str(error).strip().partition("\n")[0]


def _too_few(what: str) -> UserError:
    return UserError(
        f"the model {what}; a worker answers up to batchSize requests at once, and up to {MOST_IMAGES} "
        "images of one request: export the model for batches of any size"
    )


def _compare(outputs: np.ndarray, expected: np.ndarray, allowed: float, size: int) -> None:
    if np.allclose(outputs, expected, rtol=0, atol=allowed, equal_nan=True):
        return
    difference = np.nan_to_num(np.abs(outputs - expected), nan=np.inf).max()
    raise UserError(
        f"in a batch of {size} the model answers an image differently than alone: outputs differ by "
        f"{difference:.2g}, allowed is {allowed:.0e}. Each row must depend only on its own image: remove "
        "whatever normalises, scales or takes a softmax over the batch, such as BatchNorm that uses the "
        "batch's statistics, or export the model with a fixed batch of 1"
    )
