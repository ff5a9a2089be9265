"""The handler as the archive carries it, in this process: one answer a request, each its own."""

import json

import pytest

from conftest import DIGITS
from contract import COLOR_MODES
from pictures import VARIANTS, bad_pictures, opened

OK, BAD_REQUEST, NOT_IMPLEMENTED = 200, 400, 501
GOOD = DIGITS["3"]
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def test_every_digit_is_read(engine):
    """The ten real digits get their ten answers, in the order in which they came."""
    answers = engine.predict(list(DIGITS.values()))
    assert [(a.status, a.body) for a in answers] == [(OK, digit) for digit in DIGITS]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_encoding_is_read(engine, variant):
    """Whatever its colours, size and format, a digit is the same digit."""
    bodies = [VARIANTS[variant](opened(body)) for body in DIGITS.values()]
    assert [a.body for a in engine.predict(bodies)] == list(DIGITS)


def test_bad_pictures_fail_alone(engine):
    """In one batch the bad pictures get 400 and their reasons, the good ones between them their digits."""
    bad = bad_pictures(GOOD)
    answers = engine.predict([part for body, _ in bad.values() for part in (body, GOOD)])
    for (_, sentence), refused, good in zip(bad.values(), answers[::2], answers[1::2], strict=True):
        assert refused.status == BAD_REQUEST
        assert refused.reason.startswith(sentence)
        assert refused.headers["content-type"] == "application/json"
        assert (good.status, good.body) == (OK, "3")


def test_fault_of_ours_costs_one_answer(engine, monkeypatch):
    """Where our own code fails on one picture, that one gets 500, and the others their digits."""
    read = engine.handler.read_pixels

    def failing(body):
        if body == b"poison":
            raise AssertionError("a fault")
        return read(body)

    monkeypatch.setattr(engine.handler, "read_pixels", failing)
    good, failed, other = engine.predict([GOOD, b"poison", DIGITS["8"]])
    assert (good.body, failed.status, other.body) == ("3", 500, "8")
    assert failed.reason.startswith("this request met a fault of the server; ")


@pytest.mark.parametrize("count", [1, 2, 7, 16, 100])
def test_batches_of_any_size(engine, count):
    """Each request of a batch gets its own answer."""
    digits = [str(n * 7 % 10) for n in range(count)]
    assert [a.body for a in engine.predict([DIGITS[d] for d in digits])] == digits


@pytest.mark.parametrize("name", ["data", "file", "my picture", "content-type", "describe", "explain"])
def test_form_field_of_any_name(engine, name):
    """A form's one field is the picture; TorchServe puts the field's own type among the headers."""
    [answer] = engine.answer([{name: GOOD}], [{name: {"content-type": "image/png"}, "explain": "False"}])
    assert answer.body == "3"


def test_text_body_is_read_as_its_bytes(engine):
    """A body that a server decoded as text is refused as the bytes that it was."""
    [answer] = engine.answer([{"body": "no picture"}])
    assert answer.reason.startswith("cannot read 10 bytes starting b'no p'")


@pytest.mark.parametrize(
    ("row", "headers", "sentence"),
    [
        ({}, {}, "the request has no content"),
        ({"body": {"instances": []}}, {}, "the request holds JSON (dict), no picture"),
        (dict.fromkeys(map(str, range(65)), GOOD), FORM, "the form has the fields 0, 1, 10, 11, 12 and 60"),
        ({"body": GOOD, "b": b"no"}, FORM, "the field b: cannot read 2 bytes starting b'no' as an image;"),
        ({"a": 1}, FORM, "the request holds JSON (int), no picture"),
        ({}, {"Content-Type": "application/x-www-form-urlencoded"}, "the picture came as application/x-www"),
    ],
    ids=["nothing", "json", "too-many-fields", "one-of-two-bad", "number", "urlencoded"],
)
def test_request_without_a_picture_is_refused(engine, row, headers, sentence):
    """A request that holds no picture, or several, gets 400; its neighbour is answered."""
    refused, good = engine.answer([row, {"body": GOOD}], [headers, {}])
    assert refused.status == BAD_REQUEST
    assert refused.reason.startswith(sentence)
    assert good.body == "3"


def test_description_is_the_contract(engine, contract):
    """What TorchServe asks for with customized=true is the contract; a client's header harms no batch."""
    described, good = engine.answer([{"body": b""}, {"body": GOOD}], [{"describe": "True"}, {}])
    told = json.loads(described.content)["contract"]
    assert told["labels"] == list(contract.labels)
    assert told["input"]["mean"] == list(contract.mean)
    assert told["input"]["color"] in COLOR_MODES
    assert good.body == "3"


def test_explanations_need_captum(engine, monkeypatch):
    """Without it a request for an explanation is told what to install, and harms no neighbour."""
    explanation = engine.handler.handle.__globals__["check_offered"].__globals__
    monkeypatch.setitem(explanation, "PACKAGE", "no-such-package")
    refused, good = engine.answer([{"body": GOOD}, {"body": GOOD}], [{"explain": "True"}, {}])
    assert refused.status == NOT_IMPLEMENTED
    assert "make serve EXPLAIN=1" in refused.reason
    assert good.body == "3"
