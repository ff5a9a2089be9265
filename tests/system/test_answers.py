"""Forms of an answer, and several images at once, from TorchServe, its reverse proxy and Flask."""

import hashlib
import io
import json
from collections import Counter

import numpy as np
import pytest
import requests
from PIL import Image

from bench.load.images import encoded
from classifier.metrics.tally import PREDICTIONS, REQUESTS, Tally
from tests.conftest import DIGITS, ROOT
from tests.support.waiting import PATIENCE
from tests.support.wire import GOOD, said
from tests.support.wire import PREDICTIONS as ADDRESS

OK, BAD_REQUEST = 200, 400
JSON = "application/json"
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
MOST = 64  # images of one request


def post(url: str, path: str = ADDRESS, body: bytes = GOOD, **options) -> requests.Response:
    return requests.post(url + path, data=body, timeout=PATIENCE, **options)


def asked(engine, row: dict, **headers):
    """Return the handler's answer to one request; a good request in the same batch must succeed."""
    answer, good = engine.answer([row, {"body": GOOD}], [headers, {}])
    assert (good.status, good.body) == (OK, "3")
    return answer


def told(engine, row: dict, **headers) -> dict:
    """Return the handler's JSON answer to one request."""
    answer = asked(engine, row, **headers)
    assert (answer.status, answer.headers["content-type"]) == (OK, JSON), answer.content
    return json.loads(answer.content)


@pytest.mark.parametrize("digit", DIGITS)
def test_json_holds_what_the_model_says(engine, digit):
    """Label, index and probability match the model's outputs; the archive is named."""
    answer = told(engine, {"body": DIGITS[digit]}, Accept=JSON)
    [outputs] = np.exp(engine.handler.outputs([DIGITS[digit]]))  # they are log-probabilities
    assert set(answer) == {"label", "index", "probability", "model"}
    assert (answer["label"], answer["index"]) == (digit, int(digit))
    assert answer["probability"] == pytest.approx(outputs[int(digit)], abs=1e-6)  # six digits are returned
    assert answer["model"] == {
        "name": "convnet", "version": "1.0", "sha256": engine.handler.description["archive_sha256"]
    }  # fmt: skip


def test_json_names_the_archive_that_lies_there(everywhere, archive):
    """The digest is that of the file, on every server."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    for url in everywhere.values():
        assert post(url, headers={"Accept": JSON}).json()["model"]["sha256"] == digest


def test_top_k_are_the_likeliest_in_order(engine):
    """All ten probabilities add up to one; a smaller top_k is the start of the same list."""
    ten = told(engine, {"body": GOOD}, Accept=f"{JSON}; top_k=10")
    ranked = ten["top_k"]
    assert [one["label"] for one in ranked] == [str(one["index"]) for one in ranked]
    assert sorted(one["index"] for one in ranked) == list(range(10))
    assert [one["probability"] for one in ranked] == sorted(
        (one["probability"] for one in ranked), reverse=True
    )
    assert sum(one["probability"] for one in ranked) == pytest.approx(1, abs=1e-5)  # ten times six digits
    assert ranked[0] == {key: ten[key] for key in ("label", "index", "probability")}
    assert told(engine, {"body": GOOD}, Accept=f"{JSON}; top_k=3")["top_k"] == ranked[:3]


def test_input_is_what_the_model_saw(engine):
    """An image of the model's size is unchanged; others are rotated, cropped and scaled."""
    shown = told(engine, {"body": GOOD}, Accept=f"{JSON};show_input=true")["input"]
    assert shown == np.asarray(Image.open(io.BytesIO(GOOD)).convert("L")).tolist()
    large = (ROOT / "tests" / "images" / "5-large.png").read_bytes()
    shown = told(engine, {"body": large}, Accept=f"{JSON};show_input=true")["input"]
    assert shown == engine.handler.read_pixels(large)[:, :, 0].tolist()


PLAIN = {
    "nothing": None,
    "anything": "*/*",
    "text": "text/plain",
    "browser": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    "another-type": "image/png",
    "json-least": "text/plain, application/json;q=0.5",
    "json-not": "application/json;q=0, */*",
    "nonsense": ";;,=;,q=",
}
IN_JSON = {
    "json": "application/json",
    "upper-case": "Application/JSON",
    "axios": "application/json, text/plain, */*",
    "json-most": "text/plain;q=0.3, application/json;q=0.9",
    "quality-nonsense": "application/json;q=high",
    "options": 'application/json; top_k="2" ; show_input=1',
}


@pytest.mark.parametrize("name", PLAIN)
def test_text_is_what_nobody_need_ask_for(engine, name):
    """The answer is the bare label unless JSON is named and preferred."""
    answer = asked(engine, {"body": DIGITS["2"]}, **({} if PLAIN[name] is None else {"accept": PLAIN[name]}))
    assert (answer.body, answer.headers["content-type"]) == ("2", "text/plain; charset=utf-8")


@pytest.mark.parametrize("name", IN_JSON)
def test_json_is_preferred(engine, name):
    """JSON is sent if its quality is at least that of text."""
    assert told(engine, {"body": DIGITS["2"]}, accept=IN_JSON[name])["label"] == "2"


BAD_OPTIONS = {
    "top_k=0": "top_k is '0'; send top_k as a whole number from 1 to 10",
    "top_k=11": "top_k is '11'; send",
    "top_k=-1": "top_k is '-1'; send",
    "top_k=three": "top_k is 'three'; send",
    "top_k=": "top_k is ''; send",
    "top_k=1.0": "top_k is '1.0'; send",
    "top_k=%C2%B2": "top_k is '²'; send",
    f"top_k={'9' * 5000}": f"top_k is '{'9' * 40}...'; send",
    "show_input=yes": "show_input is 'yes'; send show_input as true or false",
    "format=xml": "format is 'xml'; send format as json or text",
    "target=eleven": "target is 'eleven'; send target as one of the labels: 0, 1, 2",
}


@pytest.mark.parametrize("query", BAD_OPTIONS, ids=[query[:20] for query in BAD_OPTIONS])
def test_bad_option_is_refused(engine, everywhere, query):
    """An invalid option in query, header, form field or JSON is named, with the allowed values."""
    name, _, value = query.partition("=")
    answers = [asked(engine, {"body": GOOD}, **{"x-query": query})]
    if "%" not in value:
        fields = {"data": GOOD, name: value.encode()}
        body = json.dumps({"instances": [""], "parameters": {name: value}}).encode()
        answers += [asked(engine, fields, **MULTIPART), asked(engine, {"body": body})]
    if "%" not in value and name != "format":
        answers.append(asked(engine, {"body": GOOD}, Accept=f"{JSON}; {query}"))
    for answer in answers:
        assert (answer.status, answer.headers["content-type"]) == (BAD_REQUEST, JSON)
        assert answer.reason.startswith(BAD_OPTIONS[query])
    if len(query) < 100:
        for server in everywhere.keys() - {"TorchServe"}:
            reply = post(everywhere[server], f"{ADDRESS}?{query}")
            assert reply.status_code == BAD_REQUEST
            assert said(reply).startswith(BAD_OPTIONS[query])


def test_query_says_what_the_header_says(everywhere):
    """Query options work behind the proxy and in Flask; TorchServe passes them on only to /invocations."""
    header = {"Accept": f"{JSON}; top_k=10; show_input=true"}
    for server, url in everywhere.items():
        expected = post(url, headers=header).json()
        query = "?format=json&top_k=10&show_input=true&of=no+interest"
        asked_so = post(url, ADDRESS + query)
        if server == "TorchServe":
            assert asked_so.text == "3"
        else:
            assert asked_so.json() == expected
        assert post(url, "/invocations" + query).json() == expected
        # The query takes precedence over the header, and top_k implies JSON.
        assert post(url, "/invocations?format=text", headers=header).text == "3"
        assert len(post(url, "/invocations?top_k=2").json()["top_k"]) == 2


def test_several_images_come_back_in_order(everywhere):
    """Form fields are answered one per line, or as a list with whatever other fields request."""
    files = [(f"f{9 - int(digit)}", image) for digit, image in DIGITS.items()]
    for url in everywhere.values():
        text = requests.post(url + ADDRESS, files=files, timeout=PATIENCE)
        assert (text.text, text.headers["Content-Type"]) == ("\n".join(DIGITS), "text/plain; charset=utf-8")
        options = {"top_k": "2", "show_input": "false"}
        listed = requests.post(url + ADDRESS, files=files, data=options, timeout=PATIENCE).json()
        assert [one["label"] for one in listed["predictions"]] == list(DIGITS)
        assert {len(one["top_k"]) for one in listed["predictions"]} == {2}
        assert listed["model"]["name"] == "convnet"


def test_as_many_as_allowed(engine):
    """64 images are answered and 65 are refused, in every request format."""
    most = {str(number): DIGITS[str(number % 10)] for number in range(MOST)}
    assert asked(engine, most, **MULTIPART).body.split("\n") == [str(number % 10) for number in range(MOST)]
    refused = asked(engine, most | {"one more": GOOD}, **MULTIPART)
    assert refused.reason.endswith("65 images; send at most 64 per request")


def test_images_together_have_the_pixels_of_one(engine):
    """Two images of 36 million pixels are refused by their headers; one alone is read."""
    large = encoded(Image.new("L", (6000, 6000)), "PNG")
    refused = asked(engine, {"a": large, "b": large}, **MULTIPART)
    assert refused.reason.startswith("the 2 images have 72,000,000 pixels in total; send at most 67,108,864")
    assert asked(engine, {"a": large}, **MULTIPART).status == OK


def test_batch_of_all_kinds(engine):
    """In a batch of text, JSON, several images and bad ones, each request gets its own answer."""
    rows = [
        {"body": DIGITS["1"]}, {"a": DIGITS["2"], "b": DIGITS["3"]}, {"body": b"no"}, {"body": DIGITS["4"]},
        {"a": DIGITS["5"], "b": b"no"}, {"body": DIGITS["6"]}, {"body": b'{"instances": []}'},
    ]  # fmt: skip
    headers = [{}, MULTIPART, {}, {"accept": JSON}, MULTIPART, {}, {}]
    answers = engine.answer(rows, headers)
    assert [one.status for one in answers] == [200, 200, 400, 200, 400, 200, 400]
    assert [answers[place].body for place in (0, 1, 5)] == ["1", "2\n3", "6"]
    assert json.loads(answers[3].content)["label"] == "4"
    assert answers[4].reason.startswith("the field b: cannot read")


def test_model_sees_no_more_at_once_than_one_request_may_have(engine, monkeypatch):
    """A batch of requests with many images is split into parts and answered correctly."""
    model, sizes = engine.handler.model, []

    def counting(batch):
        sizes.append(len(batch))
        return model(batch)

    monkeypatch.setattr(engine.handler, "model", counting)
    form = {str(number): DIGITS[str(number % 10)] for number in range(50)}
    answers = engine.answer([form] * 5, [MULTIPART] * 5)
    assert {answer.body for answer in answers} == {"\n".join(str(number % 10) for number in range(50))}
    assert (sum(sizes), max(sizes)) == (250, MOST)


def test_answer_that_torchserve_would_not_let_out_is_refused(engine, monkeypatch):
    """A response so large that it would end the worker is refused and counted as such."""
    module = engine.handler.answer.__globals__["checked"].__globals__
    settings = (ROOT / "config.properties").read_text()
    assert f"\nmax_response_size={module['MOST_BYTES']}\n" in settings
    monkeypatch.setitem(module, "MOST_BYTES", 1000)
    tally = Tally(engine.handler.contract.labels, engine.handler.contract.outputs)
    monkeypatch.setattr(engine.observer, "tally", tally)
    refused = asked(engine, {"body": GOOD}, Accept=f"{JSON}; show_input=true")
    assert refused.status == BAD_REQUEST
    assert "more than 1,000; send fewer images per request, or leave show_input out" in refused.reason
    counted = {(name, label): value for name, label, value in tally.take()}
    assert (counted[REQUESTS, "200"], counted[REQUESTS, "400"], counted[PREDICTIONS, "3"]) == (1, 1, 1)


def test_each_image_and_each_request_is_counted(engine, monkeypatch):
    """A request with three images counts as one request and three answers."""
    tally = Tally(engine.handler.contract.labels, engine.handler.contract.outputs)
    monkeypatch.setattr(engine.observer, "tally", tally)
    form = {"a": DIGITS["1"], "b": DIGITS["2"], "c": DIGITS["1"]}
    engine.answer([form, {"body": DIGITS["7"]}], [MULTIPART, {}])
    counted = Counter({(name, label): value for name, label, value in tally.take()})
    assert counted[REQUESTS, "200"] == 2
    assert [counted[PREDICTIONS, label] for label in "127"] == [2, 1, 1]
    assert counted["classifier_decode_duration_seconds_count", None] == 4
    assert counted["classifier_batch_size_sum", None] == 2


def test_fault_in_an_answer_costs_one_request(engine, monkeypatch):
    """If our code fails to write an answer, that request gets 500 and the others their answers."""
    one = engine.handler.answer.__globals__

    def failing(_):
        raise ArithmeticError

    monkeypatch.setitem(one, "checked", failing)
    failed = asked(engine, {"body": GOOD}, Accept=JSON)
    assert (failed.status, failed.headers["content-type"]) == (500, JSON)
    assert failed.reason.startswith("the server failed on this request")
