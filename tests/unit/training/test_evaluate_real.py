"""What the evaluation counts."""

import numpy as np
import pytest
from PIL import Image

from bench.load.images import opened
from tests.unit.training.test_families import BY_NAME, IMAGES, LABELS
from training import evaluate_real
from training.evaluate_real import OTHERS, Other, Reader, by_digit, figures, of_family, others
from training.other_digits import semeion

# Answers 0, 1, 1, 2, with these probabilities.
ANSWERS, SURE = [0, 1, 1, 2], [0.95, 0.9, 0.6, 0.99]
TRUTH = np.array([0, 2, 0, 2])


def probabilities(answers, sure):
    """Return probabilities (N, 3) of these answers, the rest shared by the other labels."""
    rows = np.array([[(1 - one) / 2] * 3 for one in sure])
    rows[np.arange(len(answers)), answers] = sure
    return rows


class Sevens(Reader):
    """A reader that answers 7 if the image's first pixel is dark, with probability 0.91, otherwise 1."""

    def __init__(self):
        pass

    def probabilities(self, files):
        """Return probabilities (N, 10)."""
        dark = np.array([np.asarray(opened(body))[0, 0] < 128 for body in files])
        return np.where(dark[:, None], np.eye(10)[7], np.eye(10)[1]) * 0.9 + 0.01


def test_wrong_but_sure_answers_are_counted():
    """One of four answers is wrong with a probability of 0.9; another is wrong with less."""
    found = figures(probabilities(ANSWERS, SURE), TRUTH)
    assert (found["images"], found["accuracy"], found["wrong_but_sure"]) == (4, 0.5, 0.25)


def test_errors_belong_to_the_digit_that_is_shown():
    """Of two zeros one is wrong, of two twos one is, and sure; no one is shown."""
    assert by_digit(probabilities(ANSWERS, SURE), TRUTH) == {
        "0": {"images": 2, "wrong": 1, "wrong_but_sure": 0},
        "1": {"images": 0, "wrong": 0, "wrong_but_sure": 0},
        "2": {"images": 2, "wrong": 1, "wrong_but_sure": 1},
    }


def test_others_are_measured_in_both_polarities(monkeypatch):
    """Each set has a row for each polarity; the errors by digit are those of all rows."""
    ink, labels = np.zeros((3, 16, 16), dtype=np.uint8), np.array([7, 7, 1])
    small = (Other("a", lambda: (ink, labels), 16), Other("b", lambda: (ink[:1], labels[:1]), 160))
    monkeypatch.setattr(evaluate_real, "OTHERS", small)
    rows, digits = others(Sevens())
    assert {name: one["accuracy"] for name, one in rows.items()} == pytest.approx(
        {
            "a, black on white": 1 / 3,
            "a, white on black": 2 / 3,
            "b, black on white": 0,
            "b, white on black": 1,
        }
    )
    assert rows["a, white on black"]["wrong_but_sure"] == pytest.approx(1 / 3)
    assert digits["7"] == {"images": 6, "wrong": 3, "wrong_but_sure": 3}
    assert digits["1"] == {"images": 2, "wrong": 1, "wrong_but_sure": 1}
    assert digits["3"]["images"] == 0


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.name)
def test_polarities_are_negatives(other):
    """The same digit is dark on light and light on dark, in files of the side that the set says."""
    ink, labels = other.load()
    assert len(ink) == len(labels)
    dark, light = (
        np.asarray(opened(other.file(ink[0], dark_ink=dark))).astype(int) for dark in (True, False)
    )
    assert dark.shape == light.shape == (other.side, other.side)
    assert abs(dark + light - 255).max() <= 2  # rounded twice
    assert light.mean() == pytest.approx(ink[0].mean(), rel=0.05)


def test_semeions_digits_are_sent_as_they_are_and_in_blocks():
    """The file of 16 x 16 pixels has exactly the ink; that of 160 x 160 has ten pixels for each, each way."""
    ink = semeion()[0][0]
    own, blocks = (np.asarray(opened(other.file(ink, dark_ink=False))) for other in OTHERS[2:])
    assert np.array_equal(own, ink)
    assert np.array_equal(blocks, np.asarray(Image.fromarray(ink)).repeat(10, axis=0).repeat(10, axis=1))


def test_family_of_zeros_is_measured_with_zeros():
    """A family that draws only some digits gets the first of these, as many as were asked for."""
    found = of_family(Sevens(), BY_NAME["slashed zero"], IMAGES, LABELS, 5)
    assert [(one["images"], one["accuracy"]) for one in found] == [(5, 0)] * 3
