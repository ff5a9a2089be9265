"""Check the outputs of a model before it becomes an archive: they are of a known kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from classifier import golden
from classifier.outputs import KINDS, LOG_PROBABILITIES, LOGITS, PROBABILITIES
from marctl.errors import UserError

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
