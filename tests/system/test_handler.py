"""The handler in the archive, run in this process: each request gets its own answer."""

import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from bench.load.images import VARIANTS, opened
from classifier.contract import COLOR_MODES
from classifier.metrics.tally import (
    BATCH_SIZE,
    PREDICTIONS,
    REJECTED,
    REQUESTS,
    SUM,
    Tally,
)
from classifier.torchserve.observer import Observer
from tests.conftest import DIGITS, IMAGES
from tests.support.images import bad_images

OK, BAD_REQUEST, NOT_IMPLEMENTED = 200, 400, 501
GOOD = DIGITS["3"]
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def test_every_digit_is_read(engine):
    """The ten real digits get their ten answers, in order."""
    answers = engine.predict(list(DIGITS.values()))
    assert [(a.status, a.body) for a in answers] == [(OK, digit) for digit in DIGITS]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_encoding_is_read(engine, variant):
    """A digit is read whatever its colours, size and format."""
    bodies = [VARIANTS[variant](opened(body)) for body in DIGITS.values()]
    assert [a.body for a in engine.predict(bodies)] == list(DIGITS)


def test_bad_images_fail_alone(engine):
    """The bad images of a batch get 400 and their reasons, the good ones their digits."""
    bad = bad_images(GOOD)
    answers = engine.predict([part for body, _ in bad.values() for part in (body, GOOD)])
    for (_, sentence), refused, good in zip(bad.values(), answers[::2], answers[1::2], strict=True):
        assert refused.status == BAD_REQUEST
        assert refused.reason.startswith(sentence)
        assert refused.headers["content-type"] == "application/json"
        assert (good.status, good.body) == (OK, "3")


def test_fault_of_ours_costs_one_answer(engine, monkeypatch):
    """If our code fails on one image, that image gets 500 and the others their digits."""
    read = engine.handler.read_pixels

    def failing(body):
        if body == b"poison":
            raise AssertionError("a fault")
        return read(body)

    monkeypatch.setattr(engine.handler, "read_pixels", failing)
    good, failed, other = engine.predict([GOOD, b"poison", DIGITS["8"]])
    assert (good.body, failed.status, other.body) == ("3", 500, "8")
    assert failed.reason.startswith("the server failed on this request; ")


@pytest.mark.parametrize("count", [1, 2, 7, 16, 100])
def test_batches_of_any_size(engine, count):
    """Each request of a batch gets its own answer."""
    digits = [str(n * 7 % 10) for n in range(count)]
    assert [a.body for a in engine.predict([DIGITS[d] for d in digits])] == digits


@pytest.mark.parametrize("name", ["data", "file", "my image", "content-type", "describe", "explain"])
def test_form_field_of_any_name(engine, name):
    """A form's only field is the image; TorchServe puts the field's own type among the headers."""
    [answer] = engine.answer([{name: GOOD}], [{name: {"content-type": "image/png"}, "explain": "False"}])
    assert answer.body == "3"


def test_text_body_is_read_as_its_bytes(engine):
    """A body that a server decoded as text is refused with its original bytes."""
    [answer] = engine.answer([{"body": "no image"}])
    assert answer.reason.startswith("cannot read 8 bytes starting b'no i'")


@pytest.mark.parametrize(
    ("row", "headers", "sentence"),
    [
        ({}, {}, "the request has no content"),
        ({"body": {"instances": []}}, {}, "instances is an empty list, not a list of images; send"),
        (dict.fromkeys(map(str, range(65)), GOOD), FORM, "the form has the fields 0, 1, 10, 11, 12 and 60"),
        ({"body": GOOD, "b": b"no"}, FORM, "the field b: cannot read 2 bytes starting b'no' as an image;"),
        ({"a": 1}, FORM, "cannot read 1 bytes starting b'1' as an image;"),
        ({}, {"Content-Type": "application/x-www-form-urlencoded"}, "the image was sent as application/x"),
    ],
    ids=["nothing", "json", "too-many-fields", "one-of-two-bad", "number", "urlencoded"],
)
def test_request_without_a_image_is_refused(engine, row, headers, sentence):
    """A request with no image, or several, gets 400; the other request is answered."""
    refused, good = engine.answer([row, {"body": GOOD}], [headers, {}])
    assert refused.status == BAD_REQUEST
    assert refused.reason.startswith(sentence)
    assert good.body == "3"


def test_description_is_the_contract(engine, contract):
    """customized=true returns the contract; a client's header of that name does no harm."""
    described, good = engine.answer([{"body": b""}, {"body": GOOD}], [{"describe": "True"}, {}])
    told = json.loads(described.content)["contract"]
    assert told["labels"] == list(contract.labels)
    assert told["input"]["mean"] == list(contract.mean)
    assert told["input"]["color"] in COLOR_MODES
    assert good.body == "3"


def test_explanations_need_captum(engine, monkeypatch):
    """Without it the error says what to install, and the other request is answered."""
    explanation = engine.handler.answer.__globals__["check_offered"].__globals__
    monkeypatch.setitem(explanation, "PACKAGE", "no-such-package")
    refused, good = engine.answer([{"body": GOOD}, {"body": GOOD}], [{"explain": "True"}, {}])
    assert refused.status == NOT_IMPLEMENTED
    assert "make serve EXPLAIN=1" in refused.reason
    assert good.body == "3"


def run(program: str) -> str:
    """Run a program in a new Python process; return its output."""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prediction_in_this_process_needs_no_torch(archive):
    """Opening the archive and answering its golden images does not import torch."""
    printed = run(
        f"""
import sys
import logging; logging.disable(logging.WARNING)
from pathlib import Path
from marctl.archive.opened import Opened
with Opened(Path({str(archive)!r})) as engine:
    bodies = [Path({str(IMAGES)!r}, f"{{digit}}.png").read_bytes() for digit in range(10)]
    print(*(answer.body for answer in engine.predict(bodies)))
print("torch._C" in sys.modules)
"""
    )
    assert printed.splitlines() == ["0 1 2 3 4 5 6 7 8 9", "False"]


def numbers(tally: Tally, **options) -> dict[tuple[str, str | None], float]:
    return {(name, label): value for name, label, value in tally.take(**options)}


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("a fault"), "503"), (MemoryError(), "507")], ids=["fault", "memory"]
)
def test_batch_that_fails_is_counted_as_torchserve_answers_it(engine, monkeypatch, error, status):
    """If the handler raises, each request counts with that status, refused ones included."""

    def failing(_):
        raise error

    tally = Tally(engine.handler.contract.labels, engine.handler.contract.outputs)
    monkeypatch.setattr(engine.observer, "tally", tally)
    monkeypatch.setattr(engine.handler, "model", failing)
    with pytest.raises(type(error)):
        engine.predict([DIGITS["1"], b"no image", DIGITS["2"]])
    counted = numbers(tally)
    assert counted[REQUESTS, status] == counted[BATCH_SIZE + SUM, None] == 3
    assert not [name for name, _ in counted if name in (PREDICTIONS, REJECTED)]
    assert {label for name, label in counted if name == REQUESTS} == {status}


def test_fault_at_one_image_is_one_500(engine, monkeypatch):
    """The others of its batch are counted with their labels."""
    read = engine.handler.read_pixels

    def failing(body):
        if body == b"poison":
            raise AssertionError("a fault")
        return read(body)

    tally = Tally(engine.handler.contract.labels, engine.handler.contract.outputs)
    monkeypatch.setattr(engine.observer, "tally", tally)
    monkeypatch.setattr(engine.handler, "read_pixels", failing)
    engine.answer([{"body": DIGITS["1"]}, {"body": b"poison"}, {"body": {"a": 1}}])
    counted = numbers(tally)
    assert {label: value for (name, label), value in counted.items() if name == REQUESTS} == {
        "200": 1, "500": 1, "400": 1
    }  # fmt: skip
    assert counted[PREDICTIONS, "1"] == counted[REJECTED, "json"] == 1


def test_nobody_is_told_outside_of_a_worker(engine):
    """In this process, or in Flask, the archive counts nothing and starts no thread."""
    before = threading.active_count()
    context = SimpleNamespace(metrics=None)
    assert Observer(context, engine.handler.contract, **engine.handler.identity).tally is None
    assert engine.observer.tally is None
    assert threading.active_count() == before
