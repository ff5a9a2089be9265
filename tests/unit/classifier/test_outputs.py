"""A model's outputs become probabilities, whichever of the three kinds they are."""

import numpy as np
import pytest

from classifier.outputs import KINDS, LOG_PROBABILITIES, LOGITS, PROBABILITIES, confidences, probabilities


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ([[0.1, 0.7, 0.2], [0.9, 0.05, 0.05]], PROBABILITIES),
        (np.log([[0.1, 0.7, 0.2], [0.9, 0.05, 0.05]]), LOG_PROBABILITIES),
        (np.log([[0.1, 0.7, 0.2], [0.9, 0.05, 0.05]]) + 300, LOGITS),
    ],
    ids=["probabilities", "logarithms", "logits"],
)
def test_probabilities_of_any_kind_of_output(outputs, kind):
    """Outputs may be probabilities, their logarithms, or logits for a softmax."""
    outputs = np.array(outputs, np.float32)
    found = probabilities(outputs, kind)
    # float32 has seven digits, of which 300 takes three.
    np.testing.assert_allclose(found, [[0.1, 0.7, 0.2], [0.9, 0.05, 0.05]], atol=1e-4)
    np.testing.assert_allclose(found.max(axis=1), confidences(outputs, kind), atol=1e-6)


def test_what_is_no_number_is_no_probability():
    """A row with NaN becomes zeros; the other rows keep their values."""
    found = probabilities(np.array([[np.nan, 1, 2], [5, 5, 5]], np.float32), LOGITS)
    np.testing.assert_allclose(found, [[0, 0, 0], [1 / 3] * 3], atol=1e-6)
    for kind in (PROBABILITIES, LOG_PROBABILITIES):
        found = probabilities(np.array([[np.nan, np.inf, -np.inf], [0, 0, 0]], np.float32), kind)
        assert found.tolist() == [[0, 0, 0], [float(kind == LOG_PROBABILITIES)] * 3]


def test_quantised_probabilities_are_told_as_they_are():
    """An 8-bit softmax that adds up to 0.9961 stays 0.9961: no second softmax is applied."""
    outputs = np.array([[0.9961, 0, 0]], np.float32)
    np.testing.assert_array_equal(probabilities(outputs, PROBABILITIES), outputs)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_of_a_batch_change_no_probability(kind, dtype):
    """A row of 5,000 labels has the same values alone and beside sigmoids, NaN or a one-hot row."""
    chance = np.random.default_rng(0)
    rows = chance.normal(0, 3, (4, 5000))
    rows[1] = 1 / (1 + np.exp(-rows[1]))
    rows[2, 7] = np.nan
    rows[3] = np.eye(5000)[3]
    together = probabilities(rows.astype(dtype), kind)
    for place, row in enumerate(rows.astype(dtype)):
        # float32 sums in another order differ in the seventh digit.
        np.testing.assert_allclose(together[place], probabilities(row[None], kind)[0], rtol=1e-6)
        alone = confidences(row[None], kind)
        assert confidences(rows.astype(dtype), kind)[place] == pytest.approx(alone[0], rel=1e-6)


ROWS = np.array([[2.0, 1.0, -3.0], [0.0, 0.0, 0.0], [-1e4, 5.0, 1e4]], np.float32)
CHANCES = np.exp(ROWS - ROWS.max(axis=1, keepdims=True))
CHANCES /= CHANCES.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        (ROWS, LOGITS),
        (np.log(CHANCES + 1e-30), LOG_PROBABILITIES),
        (CHANCES, PROBABILITIES),
        (ROWS.astype(np.float64), LOGITS),
        (ROWS - 100, LOGITS),
        (ROWS, None),
    ],
    ids=["logits", "log-probabilities", "probabilities", "float64", "shifted", "not-sealed"],
)
def test_confidence_is_the_largest_probability(outputs, kind):
    """The number is the same for every kind of outputs."""
    np.testing.assert_allclose(confidences(outputs, kind), CHANCES.max(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (LOGITS, [0.0, 0.0, 1.0]),
        (LOG_PROBABILITIES, [0.0, 0.0, 1.0]),
        (PROBABILITIES, [0.0, 0.0, 0.0]),
    ],
)
def test_output_that_is_no_number_is_not_trusted(kind, expected):
    """NaN and infinities give 0, and do not spoil the sums of the other rows."""
    outputs = np.array([[np.nan, 1.0], [np.inf, np.inf], [0.0, -np.inf]], np.float32)
    assert confidences(outputs, kind).tolist() == expected
