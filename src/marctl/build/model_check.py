"""Check a model before it becomes an archive: its outputs are of a known kind, and the same in any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from classifier import golden
from classifier.outputs import KINDS, LOG_PROBABILITIES, LOGITS, PROBABILITIES
from classifier.protocols.body import MOST_IMAGES
from marctl.errors import UserError

Model = Callable[[np.ndarray], np.ndarray]  # float32 (N, C, H, W) to outputs (N, labels)

# How far from 1 the sum of one image's probabilities may be. A softmax in 8 bits gives multiples of 1/256,
# each off by at most half of that: 0.0195 for ten labels. Float16 and float32 stay far below.
SUM = 0.02
# With more labels, 8 bits may be off by more. That is accepted only if the contract names the kind, and only
# up to this, so that sigmoids of several labels are still found.
LARGEST_SUM = 0.25
# The outputs for made-up images are flatter than those for golden ones: thousands of equal log-probabilities
# in bfloat16 are off by 0.03 together, and 25 labels in 8 bits by 0.05.
FLAT_SUM = 0.05
# Values in 8 bits are at least 1/256 apart, and each is off by at most half of that.
STEP = 1 / 256
# A probability may be above 1, or its logarithm above 0, by the last digit of float16.
ROUNDING = 1e-3
# golden.TOLERANCE is for the outputs of real images; those of made-up ones may be of any size. If images
# influence each other, outputs differ by far more than this share of the largest one.
SHARE = 1e-3


def check_finite(outputs: Mapping[str, np.ndarray]) -> None:
    """Raise UserError if the outputs for a golden image are not all finite."""
    for name, row in outputs.items():
        if not np.isfinite(row).all():
            raise UserError(
                f"the outputs for the golden image {name} are not all finite: {golden.shown(tuple(row))}; "
                "correct the weights or input.mean and input.std, or use log_softmax instead of log(softmax)"
            )


def kind_of_outputs(
    told: str | None,
    outputs: Mapping[str, Iterable[float]],
    made_up: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Return the kind of the outputs: what the contract says, or what the outputs themselves show.

    `outputs` has those for the golden images by name, `made_up` those that try_batches returned: the outputs
    for golden images alone may look like another kind by chance. Raises UserError if they contradict the
    contract, or are of a kind that cannot be served.
    """
    golden_rows = {name: np.array(row, np.float64) for name, row in outputs.items()}
    if any(len(row) == 1 for row in golden_rows.values()):
        raise UserError(
            "the model has one output, and a sigmoid or a regression cannot be served yet; give it an output "
            "for each of two or more labels"
        )
    # The outputs for made-up images may be infinite or NaN; that says nothing about the others.
    finite = {name: row for name, row in (made_up or {}).items() if np.isfinite(row).all()}
    rows = _Rows(golden_rows, {name: row.astype(np.float64) for name, row in finite.items()})
    return _recognised(rows) if told is None else _checked(told, rows)


@dataclass(frozen=True)
class _Rows:
    """The outputs for each golden image, and the finite ones for made-up images."""

    golden: Mapping[str, np.ndarray]
    made_up: Mapping[str, np.ndarray]

    @property
    def all(self) -> list[np.ndarray]:
        return [*self.golden.values(), *self.made_up.values()]

    def contradiction(self, kind: str, off: float = SUM) -> str | None:
        """Return what is wrong with the first row that cannot be of this kind, or None if all can be."""
        wrongs = (
            *(_wrong(kind, name, row, off) for name, row in self.golden.items()),
            *(
                _wrong(kind, name, row, max(off, FLAT_SUM))
                for name, row in self.made_up.items()
                if kind != PROBABILITIES or not _are_rounded(row)
            ),
        )
        return next((wrong for wrong in wrongs if wrong is not None), None)


def _recognised(rows: _Rows) -> str:
    for kind in (LOG_PROBABILITIES, PROBABILITIES):
        if rows.contradiction(kind) is None:
            return kind
    if all(_are_fractions(row) for row in rows.all):
        raise UserError(
            f"all outputs are between 0 and 1, but {rows.contradiction(PROBABILITIES)}: these look "
            "like sigmoids of several labels at once, which cannot be served yet. If they are something "
            f"else, say so in model-config.yaml: outputs: {LOGITS} or outputs: {PROBABILITIES}"
        )
    if _are_log_sigmoids(rows):
        raise UserError(
            f"all outputs are at most 0, but {rows.contradiction(LOG_PROBABILITIES)}: these look like the "
            "logarithms of sigmoids of several labels at once, which cannot be served yet. If they are "
            f"something else, say so in model-config.yaml: outputs: {LOGITS}"
        )
    return LOGITS


def _are_log_sigmoids(rows: _Rows) -> bool:
    """Return whether outputs look like the logarithms of sigmoids. Logits may be below 0, too.

    Sigmoids give each golden image a label that is more likely than not; logits that are all below 0 rarely
    come that close to 0. If the largest logit was subtracted, the largest output of every image is exactly 0.
    """
    if not rows.made_up or any(row.max() > ROUNDING for row in rows.all):
        return False
    return all(row.max() > np.log(0.5) for row in rows.golden.values()) and any(
        row.max() != 0 for row in rows.all
    )


def _checked(told: str, rows: _Rows) -> str:
    others = ", ".join(kind for kind in KINDS if kind != told)
    remedy = f"write what they are: {others}"
    if told == LOGITS:
        why = None
        if rows.contradiction(PROBABILITIES) is None:
            which = "every golden image and for made-up ones" if rows.made_up else "every golden image"
            why = f"the outputs for {which} are between 0 and 1 and add up to 1"
    elif told == PROBABILITIES:
        labels = len(rows.all[0])
        why = rows.contradiction(told, max(SUM, min(labels * STEP / 2, LARGEST_SUM)))
        if all(_are_fractions(row) for row in rows.all):
            remedy = (
                "keep a softmax in float32 where the rest is in 8 bits, or leave it out and write "
                f"outputs: {LOGITS}; sigmoids of several labels at once cannot be served yet"
            )
    else:
        why = rows.contradiction(told)
    if why is not None:
        raise UserError(f"model-config.yaml says outputs: {told}, but {why}; {remedy}")
    return told


def _wrong(kind: str, name: str, row: np.ndarray, off: float) -> str | None:
    """Return why the outputs for an image cannot be of this kind, or None if they can."""
    if kind == PROBABILITIES and not _are_fractions(row):
        return f"those for {name} range from {row.min():.4g} to {row.max():.4g}"
    if kind == LOG_PROBABILITIES and row.max() > ROUNDING:
        return f"those for {name} reach {row.max():.4g}, but the logarithm of a probability is at most 0"
    values, what = (np.exp(row), "exp() of those") if kind == LOG_PROBABILITIES else (row, "those")
    if not abs(values.sum() - 1) <= off:
        return f"{what} for {name} add up to {values.sum():.4g}"
    return None


def _are_rounded(row: np.ndarray) -> bool:
    """Return whether these may be probabilities rounded to 8 bits, of too many labels to add up to 1."""
    if not _are_fractions(row) or np.diff(np.unique([*row, 0])).min(initial=1) < 0.9 * STEP:
        return False
    half = STEP / 2
    least, most = np.maximum(row - half, 0).sum(), (row + half).sum()
    return bool(least <= 1 <= most)


def _are_fractions(row: np.ndarray) -> bool:
    return bool(row.min() >= -ROUNDING and row.max() <= 1 + ROUNDING)


def try_batches(
    model: Model, contract: Any, images: np.ndarray, expected: np.ndarray, batch_size: int
) -> dict[str, np.ndarray]:
    """Run a model on golden images (N, C, H, W) in batches of sizes that a worker may use.

    Each image must get its expected outputs (N, labels), whatever else is in its batch. Returns the outputs
    (labels,) for made-up images by name; they may be infinite or NaN. Raises UserError.
    """
    made_up = _made_up(contract.shape)
    others = contract.normalize(np.stack(list(made_up.values())))
    alone = np.concatenate([_answered(model, one[None]) for one in others])
    for size in sorted({1, 2, 3, batch_size, MOST_IMAGES}):
        places = np.arange(size)
        for first in (0, 1):  # so that each place in the batch has a golden image once
            is_golden = places % 2 == first
            ours, theirs = (places[which] // 2 for which in (is_golden, ~is_golden))
            ours, theirs = ours % len(images), theirs % len(others)
            batch = np.empty((size, *contract.shape), np.float32)
            batch[is_golden], batch[~is_golden] = images[ours], others[theirs]
            outputs = _answered(model, batch)
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


def _answered(model: Model, batch: np.ndarray) -> np.ndarray:
    try:
        outputs = model(batch)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise _too_few(f"fails on a batch of {len(batch)} ({type(error).__name__}: {first})") from error
    if len(outputs) != len(batch):
        raise _too_few(f"answers a batch of {len(batch)} with {len(outputs)} rows")
    return outputs


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
