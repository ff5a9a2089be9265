"""What a model has to show before it becomes an archive: outputs of a known kind, the same in any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import golden
from confidence import KINDS, LOG_PROBABILITIES, LOGITS, PROBABILITIES
from request_body import MOST_PICTURES

Model = Callable[[np.ndarray], np.ndarray]  # float32 (N, C, H, W) to outputs (N, labels)

# How far from 1 the sum of one image's probabilities may be. A softmax in 8 bits gives multiples of 1/256,
# each off by at most half of that: ten labels together by 0.0195. Float16 and float32 stay far below.
SUM = 0.02
# With more labels, 8 bits may be off by more. That is accepted only where the contract says what they are,
# and no more than this, so that sigmoids of several labels are still found.
LARGEST_SUM = 0.25
# A probability may be above 1, or its logarithm above 0, by the last digit of float16.
ROUNDING = 1e-3
# golden.TOLERANCE is for the outputs of real images; those of made-up ones may be of any size. Where images
# influence each other, outputs differ by far more than this share of the largest one.
SHARE = 1e-3


class Unfit(RuntimeError):
    """A model that would answer wrongly here; the text says why and the remedy."""


def check_finite(outputs: Mapping[str, np.ndarray]) -> None:
    """Raise Unfit where the outputs for a golden image hold what is no number."""
    for name, row in outputs.items():
        if not np.isfinite(row).all():
            raise Unfit(
                f"the outputs for the golden image {name} are not all finite: {golden.shown(tuple(row))}; "
                "correct the weights or input.mean and input.std, or use log_softmax instead of log(softmax)"
            )


def kind_of_outputs(told: str | None, outputs: Mapping[str, Iterable[float]]) -> str:
    """Return the kind of the outputs: as the contract says, or as the golden images' outputs show it.

    `outputs` are those by the name of each golden image. Raises Unfit where they contradict the contract, and
    where they are none that can be served.
    """
    rows = {name: np.array(row, np.float64) for name, row in outputs.items()}
    if any(len(row) == 1 for row in rows.values()):
        raise Unfit(
            "the model has one output, and a sigmoid or a regression cannot be served yet; give it an output "
            "for each of two or more labels"
        )
    return _recognised(rows) if told is None else _checked(told, rows)


def _recognised(rows: Mapping[str, np.ndarray]) -> str:
    for kind in (LOG_PROBABILITIES, PROBABILITIES):
        if _contradiction(kind, rows, SUM) is None:
            return kind
    if all(_are_fractions(row) for row in rows.values()):
        raise Unfit(
            f"all outputs are between 0 and 1, but {_contradiction(PROBABILITIES, rows, SUM)}: these look "
            "like sigmoids of several labels at once, which cannot be served yet. If they are something "
            f"else, write it into model-config.yaml, outputs: {LOGITS} or outputs: {PROBABILITIES}"
        )
    return LOGITS


def _checked(told: str, rows: Mapping[str, np.ndarray]) -> str:
    if told == LOGITS:
        why = None
        if _contradiction(PROBABILITIES, rows, SUM) is None:
            why = "the outputs for every golden image are between 0 and 1 and add up to 1"
    elif told == PROBABILITIES:
        labels = len(next(iter(rows.values())))
        why = _contradiction(told, rows, max(SUM, min(labels / 512, LARGEST_SUM)))
    else:
        why = _contradiction(told, rows, SUM)
    if why is not None:
        raise Unfit(
            f"model-config.yaml says outputs: {told}, but {why}; write what they are: "
            f"{', '.join(kind for kind in KINDS if kind != told)}, or golden images that show it"
        )
    return told


def _contradiction(kind: str, rows: Mapping[str, np.ndarray], off: float) -> str | None:
    """Return what is wrong with the first row that cannot be of a kind; None where each may be."""
    for name, row in rows.items():
        if kind == PROBABILITIES and not _are_fractions(row):
            return f"those for {name} reach from {row.min():.4g} to {row.max():.4g}"
        if kind == LOG_PROBABILITIES and row.max() > ROUNDING:
            return f"those for {name} reach {row.max():.4g}, and the logarithm of a probability is at most 0"
        values, what = (np.exp(row), "exp() of those") if kind == LOG_PROBABILITIES else (row, "those")
        if not abs(values.sum() - 1) <= off:
            return f"{what} for {name} add up to {values.sum():.4g}"
    return None


def _are_fractions(row: np.ndarray) -> bool:
    return bool(row.min() >= -ROUNDING and row.max() <= 1 + ROUNDING)


def try_batches(
    model: Model, contract: Any, images: np.ndarray, expected: np.ndarray, batch_size: int
) -> None:
    """Have a model answer golden images (N, C, H, W) in each size of batch that a worker may make.

    Each image's outputs have to be the expected ones (N, labels), whatever shares its batch. Raises Unfit.
    """
    others = contract.normalize(_made_up(contract.shape))
    alone = np.concatenate([_answered(model, one[None]) for one in others])
    for size in sorted({1, 2, 3, batch_size, MOST_PICTURES}):
        places = np.arange(size)
        for first in (0, 1):  # so that each place of the batch has a golden image once
            is_golden = places % 2 == first
            ours, theirs = (places[which] // 2 for which in (is_golden, ~is_golden))
            ours, theirs = ours % len(images), theirs % len(others)
            batch = np.empty((size, *contract.shape), np.float32)
            batch[is_golden], batch[~is_golden] = images[ours], others[theirs]
            outputs = _answered(model, batch)
            _compare(outputs[is_golden], expected[ours], golden.TOLERANCE, size)
            with np.errstate(invalid="ignore"):  # what a model makes of made-up images may be no number
                scale = np.abs(alone[theirs]).max(axis=1, initial=1, keepdims=True)
                _compare(outputs[~is_golden] / scale, alone[theirs] / scale, SHARE, size)


def _made_up(shape: tuple[int, int, int]) -> np.ndarray:
    """Return images uint8 (5, H, W, C) unlike each other: noise, black, dark noise, white, light noise."""
    channels, height, width = shape
    size = (height, width, channels)
    noise, dark, light = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    black = np.zeros(size, np.uint8)
    return np.stack([noise, black, dark // 8, ~black, ~(light // 8)])


def _answered(model: Model, batch: np.ndarray) -> np.ndarray:
    try:
        outputs = model(batch)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise _too_few(f"fails on a batch of {len(batch)} ({type(error).__name__}: {first})") from error
    if len(outputs) != len(batch):
        raise _too_few(f"answers a batch of {len(batch)} with {len(outputs)} rows")
    return outputs


def _too_few(what: str) -> Unfit:
    return Unfit(
        f"the model {what}; a worker answers up to batchSize requests at once, and up to {MOST_PICTURES} "
        "images of one request: export the model for batches of any size"
    )


def _compare(outputs: np.ndarray, expected: np.ndarray, allowed: float, size: int) -> None:
    if np.allclose(outputs, expected, rtol=0, atol=allowed, equal_nan=True):
        return
    difference = np.nan_to_num(np.abs(outputs - expected), nan=np.inf).max()
    raise Unfit(
        f"in a batch of {size} the model answers an image otherwise than alone: outputs differ by "
        f"{difference:.2g}, allowed is {allowed:.0e}. Each row has to depend on its own image alone: remove "
        "what normalises, scales or takes a softmax over the batch, such as BatchNorm with its statistics"
    )
