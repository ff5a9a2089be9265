"""The outputs of a model are checked before it is archived: they are of a known kind."""

import numpy as np
import pytest
import torch

from marctl.build.model_check import check_finite, kind_of_outputs
from marctl.errors import UserError
from tests.support.outputs import TOLD, eight_bits, softmax


def rows(*outputs):
    """Return the outputs by name of golden image."""
    return {f"{index}.png": row for index, row in enumerate(outputs)}


THOUSANDS = softmax(np.random.default_rng(0).normal(0, 3, 5000))
CERTAIN = {
    "log-probabilities": ("log-probabilities", [np.log([0.1, 0.7, 0.2]), np.log([0.9, 0.05, 0.05])]),
    "probabilities": ("probabilities", [[0.1, 0.7, 0.2], [0.9, 0.05, 0.05]]),
    "one-hot": ("probabilities", [[0, 1, 0], [1, 0, 0]]),
    "saturated-8-bits": ("probabilities", [[0.99609375, 0, 0], [0, 0.99609375, 0]]),
    "8-bits": ("probabilities", [eight_bits(softmax(np.arange(10) / 3)), eight_bits(np.full(10, 0.1))]),
    "float16-thousands": ("probabilities", [THOUSANDS.astype(np.float16)]),
    "float32-thousands": ("probabilities", [THOUSANDS.astype(np.float32)]),
    "float16-log-thousands": ("log-probabilities", [np.log(THOUSANDS).astype(np.float16)]),
    "logits": ("logits", [[3.0, -1.0, 0.5], [0.1, 0.2, 0.3]]),
    "one-row-of-logits": ("logits", [[0.1, 0.7, 0.2], [0.1, 0.7, 1.2]]),
    "tanh": ("logits", [[0.3, -0.9, 0.6]]),
    "negative-logits": ("logits", [[-3.0, -1.0, -0.5]]),
}


@pytest.mark.parametrize("case", CERTAIN)
def test_kind_is_told_by_the_golden_outputs(case):
    """If the contract does not give the kind, it is what every golden row shows, otherwise logits."""
    kind, outputs = CERTAIN[case]
    assert kind_of_outputs(None, rows(*outputs)) == kind
    assert kind_of_outputs(kind, rows(*outputs)) == kind


SIGMOIDS = "these look like sigmoids of several labels at once, which cannot be served yet"
REFUSED = {
    "one-output": (None, [[0.7]], "one output, and a sigmoid or a regression cannot be served yet"),
    "one-output-told": ("logits", [[3.7]], "the model has one output"),
    "one-certain-output": ("probabilities", [[1.0]], "the model has one output"),
    "sigmoids": (None, [[0.891, 0.7, 0.1, 0.2]], f"those for 0.png add up to 1.891: {SIGMOIDS}"),
    "sigmoids-of-one-row": (None, [[1, 0, 0], [0.9, 0.8, 0.1]], f"those for 1.png add up to 1.8: {SIGMOIDS}"),
    "sigmoids-of-none": (None, [[0.01, 0.02, 0.01]], f"those for 0.png add up to 0.04: {SIGMOIDS}"),
    "sigmoids-of-thousands": (None, [[0.001] * 5000], f"those for 0.png add up to 5: {SIGMOIDS}"),
    "sigmoids-told": ("probabilities", [[0.9, 0.8, 0.1]], f"{TOLD}probabilities, but those for 0.png add up"),
    "logits-as-probabilities": ("probabilities", [[0.5, 0.5], [-1, 2]], "1.png range from -1 to 2; write"),
    "probabilities-as-logits": ("logits", [[0.1, 0.9], [0.5, 0.5]], "between 0 and 1 and add up to 1; write"),
    "8-bits-as-logits": ("logits", [[0.99609375, 0, 0]], "between 0 and 1 and add up to 1; write"),
    "logits-as-logarithms": ("log-probabilities", [[-3, -1, 2]], "for 0.png reach 2, but the logarithm"),
    "low-logits-as-logarithms": ("log-probabilities", [[-3, -1, -2]], "exp() of those for 0.png add up to"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_outputs_are_refused(case):
    """These are not from a classifier with one answer, or not of the kind in the contract."""
    told, outputs, sentence = REFUSED[case]
    with pytest.raises(UserError) as refused:
        kind_of_outputs(told, rows(*outputs))
    assert sentence in str(refused.value)


def test_contract_is_believed_where_it_may_be_right():
    """Logits may lie between 0 and 1 or be log-probabilities; 8-bit rows of 1,000 labels add up to less."""
    assert kind_of_outputs("logits", rows([0.9, 0.8, 0.1])) == "logits"
    assert kind_of_outputs("logits", rows(np.log([0.1, 0.9]))) == "logits"
    coarse = eight_bits(softmax(np.r_[8.0, np.zeros(999)]))
    assert coarse.sum() < 0.9
    assert kind_of_outputs("probabilities", rows(coarse)) == "probabilities"
    with pytest.raises(UserError):
        kind_of_outputs(None, rows(coarse))


MADE_UP = {
    "sigmoids": (None, [[1, 0, 0]], [[0, 0, 1], [0.5, 0.5, 0.5]], f"made-up 1 add up to 1.5: {SIGMOIDS}"),
    "sigmoids-of-none": (None, [[1, 0, 0]], [[0, 0, 1], [0, 0, 0]], f"made-up 1 add up to 0: {SIGMOIDS}"),
    "sigmoids-of-a-hundred": (None, [np.eye(100)[0]], [np.zeros(100)], f"made-up 0 add up to 0: {SIGMOIDS}"),
    "sigmoids-of-a-thousand": (None, [np.eye(1000)[0]], [np.linspace(0, 1e-4, 1000)], SIGMOIDS),
    "equal-ones-of-a-thousand": (None, [np.eye(1000)[0]], [np.full(1000, 1e-9)], SIGMOIDS),
    "several-of-a-thousand": (None, [np.eye(1000)[0]], [np.eye(1000)[:2].sum(0)], SIGMOIDS),
    "sigmoids-told": ("probabilities", [[1, 0, 0]], [[1, 0, 1]], f"{TOLD}probabilities, but those for made-"),
    "logits-as-probabilities": ("probabilities", [[0.3, 0.7]], [[5, -2]], "0 range from -2 to 5; write what"),
    "logits-as-logarithms": (
        "log-probabilities",
        [np.log([0.3, 0.7])],
        [[1, -2]],
        "made-up 0 reach 1, but t",
    ),
    "probabilities-as-logits": ("logits", [[0.3, 0.7]], [[0.5, 0.5]], "and for made-up ones are between 0"),
    "log-sigmoids": (None, [[-0.1, -9, -0.2]], [[-3, -1, -2]], "all outputs are at most 0, but exp() of th"),
    "log-sigmoids-of-one": (None, [[0, -30, -30]], [[-0.7, -0.7, -0.7]], "the logarithms of sigmoids of"),
}


@pytest.mark.parametrize("case", MADE_UP)
def test_made_up_images_show_what_golden_ones_do_not(case):
    """Golden images may have one label each by chance; outputs for noise, black and white show more."""
    told, outputs, others, sentence = MADE_UP[case]
    with pytest.raises(UserError) as refused:
        kind_of_outputs(told, rows(*outputs), made_up(*others))
    assert sentence in str(refused.value)
    if told is None:
        assert kind_of_outputs("logits", rows(*outputs), made_up(*others)) == "logits"


def made_up(*outputs):
    """Return the outputs by name of made-up image."""
    return {f"made-up {index}": np.array(row, np.float64) for index, row in enumerate(outputs)}


FLAT = np.full(4800, 1 / 4800)
NOT_FINITE = [float("nan"), 9.0]
STILL = {
    "logits-by-chance": ("logits", [[0.3, 0.71]], [[12.0, -4.0], [0.0, 0.0]]),
    "fractions-by-chance": ("logits", [[0.3, 0.9]], [[12.0, -4.0]]),
    "logarithms-by-chance": ("logits", [np.log([0.3, 0.7])], [[12.0, -4.0]]),
    "shifted-logits": ("logits", [[0.0, -0.5, -3.0]], [[-2.0, 0.0, -0.1]]),
    "far-below-0": ("logits", [[-15.0, -20.0, -31.0]], [[-20.0, -20.0, -20.0]]),
    "not-finite": ("probabilities", [[0.3, 0.7]], [NOT_FINITE]),
    "flat-in-8-bits": ("probabilities", [np.eye(30)[0]], [eight_bits(np.full(30, 1 / 30))]),
    "nothing-left-of-8-bits": ("probabilities", [eight_bits(np.eye(1000)[0])], [np.zeros(1000)]),
    "flat-in-float16": ("probabilities", [THOUSANDS], [FLAT.astype(np.float16)]),
    "flat-logarithms-in-float16": (
        "log-probabilities", [np.log(THOUSANDS)], [np.log(FLAT).astype(np.float16)],
    ),
    "flat-logarithms-in-bfloat16": (
        "log-probabilities", [np.log(THOUSANDS)], [torch.tensor(np.log(FLAT)).bfloat16().double().numpy()],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STILL)
def test_made_up_images_contradict_nothing_by_rounding(case):
    """NaN proves nothing; 8 bits, float16 and bfloat16 round flat rows more than others."""
    kind, outputs, others = STILL[case]
    assert kind_of_outputs(None, rows(*outputs), made_up(*others)) == kind
    assert kind_of_outputs(kind, rows(*outputs), made_up(*others)) == kind


def test_remedy_for_a_coarse_softmax_works():
    """If 8 bits lose too much of a thousand labels, each remedy that the error names works."""
    logits = np.r_[5.0, np.zeros(999)]
    coarse = eight_bits(softmax(logits))
    assert coarse.sum() < 0.2
    with pytest.raises(UserError) as refused:
        kind_of_outputs("probabilities", rows(coarse))
    assert str(refused.value).endswith(
        "; keep a softmax in float32 where the rest is in 8 bits, or leave it out and write outputs: logits; "
        "sigmoids of several labels at once cannot be served yet"
    )
    assert kind_of_outputs("probabilities", rows(softmax(logits).astype(np.float32))) == "probabilities"
    assert kind_of_outputs("logits", rows(logits)) == "logits"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(value):
    """The error names the golden image."""
    with pytest.raises(
        UserError, match=r"the golden image 1\.png are not all finite: \[1\.00000, -?(nan|inf)\]"
    ):
        check_finite({"0.png": np.array([1.0, 2.0]), "1.png": np.array([1.0, value])})
