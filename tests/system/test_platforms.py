"""Requests of other platforms: KServe V1 and V2, Vertex AI and SageMaker, on every server.

KServe's own SDK installs a server with dozens of packages besides its client, so its V1 request is written
here as documented. So are those of Vertex AI and SageMaker, whose clients talk only to their clouds.
"""

import base64
import json
import random
import struct
from importlib import metadata

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.conftest import DIGITS
from tests.support.waiting import PATIENCE
from tests.support.wire import GOOD, json_of, said, said_in_v2

OK, BAD_REQUEST = 200, 400
V1, V2, INVOCATIONS = "/v1/models/convnet:predict", "/v2/models/convnet/infer", "/invocations"
MOST = 64
UNKNOWN = ("/v2/models/other", "/v2/models/other/versions/1.0", "/v2/models/convnet/versions/2.0")
B64 = {digit: base64.b64encode(image).decode() for digit, image in DIGITS.items()}
ONE = {"name": "picture", "shape": [1], "datatype": "BYTES", "data": [B64["3"]]}


def post(url: str, body, **headers) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(
        url, data=data, headers={"Content-Type": "application/json", **headers}, timeout=PATIENCE
    )


def labels_of(reply: requests.Response) -> list[str]:
    assert (reply.status_code, reply.headers["Content-Type"]) == (OK, "application/json"), reply.text
    assert set(reply.json()) == {"predictions"}
    return [one["label"] for one in reply.json()["predictions"]]


INSTANCES = {
    "torchserve": lambda b64: {"data": b64},
    "tensorflow": lambda b64: {"b64": b64},
    "vertex": lambda b64: {"image_bytes": {"b64": b64}},
    "text": lambda b64: b64,
    "data-address": lambda b64: {"data": f"data:image/png;base64,{b64}"},
    "lines": lambda b64: {"b64": "\n".join(b64[place : place + 76] for place in range(0, len(b64), 76))},
    "named": lambda b64: {"key": "7", "data": b64},
}


@pytest.mark.parametrize("kind", INSTANCES)
def test_v1_answers_instances_in_order(everywhere, kind):
    """KServe V1: a list of images in base64, a list of predictions."""
    body = {"instances": [INSTANCES[kind](b64) for b64 in B64.values()]}
    for url in everywhere.values():
        assert labels_of(post(url + V1, body)) == list(DIGITS)


def test_vertex_parameters_are_heeded(everywhere):
    """Vertex AI sends parameters beside the instances, to a configurable address."""
    body = {
        "instances": [{"b64": B64["3"]}, {"b64": B64["8"]}],
        "parameters": {"top_k": 3, "show_input": False},
    }
    for url in everywhere.values():
        for path in (INVOCATIONS, "/predictions/convnet", V1):
            predictions = post(url + path, body).json()["predictions"]
            assert [len(one["top_k"]) for one in predictions] == [3, 3]
            assert [one["label"] for one in predictions] == ["3", "8"]


def test_sagemaker_sends_files_and_json(everywhere):
    """POST /invocations with an image or JSON; the Accept header selects the answer's format."""
    for url in everywhere.values():
        text = post(url + INVOCATIONS, DIGITS["4"], **{"Content-Type": "image/png"})
        assert (text.text, text.headers["Content-Type"]) == ("4", "text/plain; charset=utf-8")
        accepting = {"Content-Type": "image/png", "Accept": "application/json"}
        assert post(url + INVOCATIONS, DIGITS["4"], **accepting).json()["label"] == "4"
        assert labels_of(post(url + INVOCATIONS, {"instances": [{"data": B64["4"]}]})) == ["4"]
        lines = post(url + INVOCATIONS, json_of(DIGITS["4"], DIGITS["5"]), Accept="text/plain")
        assert lines.text == "4\n5"


def test_platforms_ask_whether_it_is_ready(everywhere):
    """Each has its own address; TorchServe itself knows only /ping."""
    for server, url in everywhere.items():
        assert requests.get(f"{url}/ping", timeout=PATIENCE).json() == {"status": "Healthy"}
        if server == "TorchServe":
            continue
        pages = {
            "/health/live": {"status": "live"}, "/health/ready": {"status": "ready"},
            "/v2/health/live": {"live": True}, "/v2/health/ready": {"ready": True},
            "/v1/models/convnet": {"name": "convnet", "ready": True},
        }  # fmt: skip
        for path, expected in pages.items():
            reply = requests.get(f"{url}{path}?of=no+interest", timeout=PATIENCE)
            assert (reply.status_code, reply.json()) == (OK, expected)
        for path in ("/v1/models/other", *UNKNOWN, *(f"{path}/ready" for path in UNKNOWN)):
            assert said(requests.get(url + path, timeout=PATIENCE)).startswith("there is no such model")


def test_v2_tells_of_the_server(everywhere):
    """GET /v2, with or without a trailing slash, returns name, version and extensions."""
    for server, url in everywhere.items():
        if server != "TorchServe":
            for path in ("/v2", "/v2/"):
                told = requests.get(url + path, timeout=PATIENCE).json()
                assert set(told) == {"name", "version", "extensions"}
                assert told["name"] == {"reverse proxy": "torchserve", "Flask": "flask"}[server]
                assert told["version"] == metadata.version(told["name"])
                assert told["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize("shape", [[-1], [-1, 1], [1, -1], [-1, 1, 1]], ids=str)
@pytest.mark.parametrize("digits", ["3", "1234567890"], ids=["one", "ten"])
@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_number_of_files_is_told_from_the_data(everywhere, shape, digits, binary):
    """A size of -1, as in TorchServe's KServe requests, becomes the number of files."""
    if binary:
        data = b"".join(struct.pack("<I", len(DIGITS[digit])) + DIGITS[digit] for digit in digits)
        head = v2(shape=shape, parameters={"binary_data_size": len(data)})
        del head["inputs"][0]["data"]
        body, headers = behind(head, data)
    else:
        body, headers = v2(shape=shape, data=[B64[digit] for digit in digits]), {}
    for url in everywhere.values():
        reply = post(url + V2, body, **headers)
        assert reply.status_code == OK, reply.text
        label = reply.json()["outputs"][0]
        assert (label["shape"], label["data"]) == ([len(digits)], list(digits))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_open_size_of_numbers_is_told_from_the_data(engine, place, binary):
    """In FP32, any one of the sizes can be -1."""
    count = 10 if place == 0 else 1
    scaled = engine.handler.preprocess(
        [engine.handler.read_pixels(image) for image in list(DIGITS.values())[-count:]]
    )
    shape = list(scaled.shape)
    shape[place] = -1
    if binary:
        size = {"binary_data_size": scaled.nbytes}
        head = {"inputs": [{"datatype": "FP32", "shape": shape, "parameters": size}]}
        body, headers = behind(head, scaled.tobytes())
    else:
        body, headers = as_bytes(numbers(shape, scaled.tolist())), {}
    [answer] = engine.answer([{"body": body}], [headers])
    assert json.loads(answer.content)["outputs"][0]["data"] == list(DIGITS)[-count:]


@pytest.fixture(scope="module")
def clients(everywhere):
    """Triton's client for each server."""
    opened = {
        name: triton.InferenceServerClient(url.removeprefix("http://"), connection_timeout=PATIENCE)
        for name, url in everywhere.items()
    }
    yield opened
    for client in opened.values():
        client.close()


def files_of(digits, *, binary: bool):
    """Return Triton's input for image files, as bytes or as base64 in JSON."""
    values = [DIGITS[digit] if binary else B64[digit].encode() for digit in digits]
    tensor = triton.InferInput("picture", [len(values)], "BYTES")
    tensor.set_data_from_numpy(np.array(values, dtype=np.object_), binary_data=binary)
    return [tensor]


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_tritons_client_is_answered(clients, engine, binary):
    """Ten images at once, with binary tensors both ways, and all in JSON."""
    outputs = np.exp(engine.handler.outputs(list(DIGITS.values())))
    names = ("label", "index", "probability", "probabilities")
    wanted = None if binary else [triton.InferRequestedOutput(name, binary_data=False) for name in names]
    for client in clients.values():
        reply = client.infer("convnet", files_of(DIGITS, binary=binary), outputs=wanted, request_id="seven")
        assert reply.get_response()["id"] == "seven"
        assert (reply.get_response()["model_name"], reply.get_response()["model_version"]) == (
            "convnet",
            "1.0",
        )
        labels = [label.decode() if binary else label for label in reply.as_numpy("label").tolist()]
        assert labels == list(DIGITS)
        assert reply.as_numpy("index").tolist() == list(range(10))
        # JSON has six digits.
        np.testing.assert_allclose(reply.as_numpy("probabilities"), outputs, rtol=0, atol=2e-6)
        np.testing.assert_allclose(reply.as_numpy("probability"), outputs.max(axis=1), rtol=0, atol=2e-6)


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
def test_scaled_grey_levels_are_answered(clients, engine, binary):
    """FP32 of the model's shape, scaled by the client, gets the same answers as image files."""
    scaled = engine.handler.preprocess([engine.handler.read_pixels(image) for image in DIGITS.values()])
    tensor = triton.InferInput("anything", list(scaled.shape), "FP32")
    tensor.set_data_from_numpy(scaled, binary_data=binary)
    wanted = [triton.InferRequestedOutput("index", binary_data=True),
              triton.InferRequestedOutput("probability", binary_data=False)]  # fmt: skip
    for client in clients.values():
        reply = client.infer("convnet", [tensor], outputs=wanted)
        assert [one["name"] for one in reply.get_response()["outputs"]] == ["index", "probability"]
        assert reply.as_numpy("index").tolist() == list(range(10))
        by_files = client.infer("convnet", files_of(DIGITS, binary=True)).as_numpy("probability")
        np.testing.assert_allclose(reply.as_numpy("probability"), by_files, rtol=0, atol=2e-6)


def test_tritons_client_is_told_why_not(clients):
    """An error is a text, which the client prints."""
    for client in clients.values():
        with pytest.raises(InferenceServerException) as refused:
            client.infer("convnet", files_of(["1"] * (MOST + 1), binary=True))
        assert refused.value.status() == "400"
        assert str(refused.value) == "[400] the input's shape has 65 images; send at most 64 per request"


def test_tritons_client_is_told_of_a_missing_model(clients):
    """A model or version that is not served gets 404 as a text; TorchServe's own 404 differs."""
    for server, client in clients.items():
        if server != "TorchServe":
            for name, version in (("other", ""), ("convnet", "2.0")):
                assert not client.is_model_ready(name, version)
                with pytest.raises(InferenceServerException, match=r"^\[404\] there is no such model, or"):
                    client.get_model_metadata(name, version)
                with pytest.raises(InferenceServerException, match=r"^\[404\] there is no such model, or"):
                    client.infer(name, files_of("1", binary=True), version)


def test_tritons_client_asks_for_health(clients):
    """Its users call this first; TorchServe itself does not answer it."""
    for server, client in clients.items():
        if server != "TorchServe":
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("convnet")
            assert client.is_model_ready("convnet", "1.0")
            assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
            assert client.get_model_metadata("convnet", "1.0") == client.get_model_metadata("convnet")
            described = client.get_model_metadata("convnet")
            assert described["versions"] == ["1.0"]
            assert described["inputs"] == [{"name": "picture", "datatype": "BYTES", "shape": [-1]}]
            by_version = client.infer("convnet", files_of("12", binary=True), model_version="1.0")
            assert by_version.get_response()["model_version"] == "1.0"
            assert by_version.as_numpy("label").tolist() == [b"1", b"2"]
            reply = client.infer("convnet", files_of("12", binary=True))
            for output in described["outputs"]:
                given = reply.get_output(output["name"])
                assert given["datatype"] == output["datatype"]
                assert given["shape"] == [2, *output["shape"][1:]]


def v2(**more) -> dict:
    return {"inputs": [{**ONE, **more}]}


def numbers(shape, data) -> dict:
    return v2(shape=shape, datatype="FP32", data=data)


ZEROS = [0] * 784
BAD_JSON = {
    "nothing": (b"{", "the body is not valid JSON ("),
    "cut-short": (b'{"instances": [{"data": "', "the body is not valid JSON ("),
    "trailing": (b'{"instances": []} x', "the body is not valid JSON (Extra data"),
    "not-utf-8": (b'{"instances": ["\xff"]}', "the body is not valid JSON ("),
    "list": (b"[1, 2]", "the JSON is a list of length 2, not an object; send"),
    "blank-then-number": (b" 17", "the JSON is 17, not an object"),
    "deep": (b'{"instances": ' + b"[" * 9000 + b"]" * 9000 + b"}", "the JSON is nested too deeply"),
    "deep-objects": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "the JSON is nested too deeply"),
    "many-values": (b'{"instances": [' + b"[]," * 100_000 + b"[]]}", "the JSON has about 200,003 values;"),
    "nan": (b'{"instances": [NaN]}', "the body is not valid JSON (NaN is not a JSON number)"),
    "infinity": (b'{"inputs": [-Infinity]}', "the body is not valid JSON (-Infinity is not a JSON number"),
    "huge-number": (b'{"instances": ' + b"9" * 10_000 + b"}", "the body is not valid JSON (Exceeds the"),
    "no-instances": ({"images": ["x"]}, "the JSON is an object with the keys 'images', without instances"),
    "no-keys": ({}, "the JSON is an empty object, without instances or inputs"),
    "instances-null": ({"instances": None}, "instances is null, not a list of images"),
    "instances-object": ({"instances": {"data": "x"}}, "instances is an object with the keys 'data', not"),
    "instances-empty": ({"instances": []}, "instances is an empty list, not a list of images; send"),
    "too-many": ({"instances": [""] * 65}, "instances has 65 images; send at most 64 per request"),
    "number": ({"instances": [7]}, "instance 0 is 7, not an image; send"),
    "pixels": ({"instances": [B64["3"], [[0] * 28] * 28]}, "instance 1 is a list of length 28, not an image"),
    "unknown-key": ({"instances": [{"image": "x"}]}, "instance 0 is an object with the keys 'image', not"),
    "two-keys": ({"instances": [{"data": "x", "b64": "x"}]}, "instance 0 is an object with the keys 'data'"),
    "too-deep": ({"instances": [{"data": {"b64": {"b64": "x"}}}]}, "instance 0 is an object"),
    "no-base64": ({"instances": [{"data": "häh?"}]}, "instance 0 is not valid base64 ("),
    "url-alphabet": ({"instances": ["-_-_"]}, "instance 0 is not valid base64 ("),
    "padding": ({"instances": [B64["3"].rstrip("=")[:-1]]}, "instance 0"),
    "no-image": ({"instances": [B64["3"], "aGVsbG8="]}, "instance 1: cannot read 5 bytes starting b'hell'"),
    "empty-image": ({"instances": [""]}, "instance 0: the request has no content"),
    "parameters": ({"instances": [B64["3"]], "parameters": [3]}, "parameters is a list of length 1, not"),
    "top-k-true": ({"instances": [B64["3"]], "parameters": {"top_k": True}}, "top_k is 'true'; send"),
    "top-k-list": ({"instances": [B64["3"]], "parameters": {"top_k": [3]}}, "top_k is '[3]'; send"),
    "surrogate": ({"instances": [B64["3"]], "parameters": {"format": "\ud800"}}, "format is "),
    "no-inputs": ({"inputs": []}, "inputs is an empty list, without a tensor; send image files as BYTES"),
    "inputs-null": ({"inputs": None}, "inputs is null, without a tensor"),
    "two-inputs": ({"inputs": [ONE, ONE]}, "there are 2 inputs; the model has one"),
    "datatype": (v2(datatype="INT64"), "the input's datatype is 'INT64'; send image files as BYTES"),
    "datatype-number": (v2(datatype=3), "the input's datatype is 3"),
    "datatype-missing": ({"inputs": [{"shape": [1]}]}, "inputs is a list of length 1, without a tensor"),
    "shape-missing": ({"inputs": [{"datatype": "BYTES", "data": ["x"]}]}, "the input's shape is null"),
    "shape-text": (v2(shape="1"), "the input's shape is '1'; send a list of whole numbers"),
    "shape-true": (v2(shape=[True]), "the input's shape is a list of length 1; send a list of whole numbers"),
    "shape-negative": (v2(shape=[-2]), "the input's shape is a list of length 1; send"),
    "shape-fraction": (v2(shape=[-1.0]), "the input's shape is a list of length 1; send"),
    "shape-open-twice": (v2(shape=[-1, -1]), "the input's shape [-1, -1] leaves 2 sizes open; send -1"),
    "shape-open-zero": (v2(shape=[-1], data=[]), "the input's shape [-1] holds no image; send"),
    "shape-open-by-zero": (v2(shape=[-1, 0], data=[]), "the input's shape [-1, 0] holds no image; send"),
    "shape-open-no-multiple": (v2(shape=[-1, 2]),
        "the input's shape [-1, 2] needs a multiple of 2 elements, but its data has 1; send whole rows"),
    "shape-open-too-many": (v2(shape=[-1], data=[B64["3"]] * 65), "the input's shape has 65 images; send"),
    "shape-open-too-many-each": (v2(shape=[1, -1], data=[B64["3"]] * 65), "the input's shape has 65"),
    "floats-open-twice": (numbers([-1, -1, 28, 28], ZEROS), "the input's shape [-1, -1, 28, 28] leaves 2"),
    "floats-open-zero": (numbers([-1, 1, 28, 28], []), "the input's shape [-1, 1, 28, 28] holds no image"),
    "floats-open-few": (numbers([-1, 1, 28, 28], ZEROS[1:]),
        "the input's shape [-1, 1, 28, 28] needs a multiple of 784 elements, but its data has 783"),
    "floats-open-flat": (numbers([-1, 784], ZEROS), "the input's shape is [-1, 784]; send image files"),
    "floats-open-other": (numbers([1, -1, 28, 28], ZEROS * 3), "the input's shape is [1, -1, 28, 28]; send"),
    "floats-open-too-many": (numbers([-1, 1, 28, 28], [0] * 784 * 64 + ZEROS), "the input's shape has 65"),
    "shape-empty": (v2(shape=[]), "the input's shape is an empty list; send"),
    "shape-huge": (v2(shape=[1, 10**300]), "the input's shape is a list of length 2; send"),
    "shape-long": (v2(shape=[1] * 500), "the input's shape is a list of length 500; send"),
    "shape-zero": (v2(shape=[0], data=[]), "the input's shape [0] holds no image; send"),
    "shape-zero-each": (v2(shape=[1, 0], data=[]), "the input's shape [1, 0] holds no image; send"),
    "floats-zero": (numbers([1, 0, 28, 28], []), "the input's shape [1, 0, 28, 28] holds no image; send"),
    "shape-too-many": (v2(shape=[65]), "the input's shape has 65 images; send at most 64 per request"),
    "shape-too-many-each": (v2(shape=[1, 65]), "the input's shape has 65 images; send at most 64 per"),
    "shape-and-data": (v2(shape=[2]), "the input's shape [2] has 2 elements, but its data has 1"),
    "data-missing": (v2(data=None), "the input's data is null; send a list"),
    "data-numbers": (v2(data=[1]), "the BYTES data is not a list of strings"),
    "data-no-base64": (v2(data=["?"]), "element 0 is not valid base64"),
    "data-no-image": (v2(data=["aGVsbG8="]), "element 0: cannot read 5 bytes"),
    "floats-shape": (numbers([1, 784], ZEROS), "the input's shape is [1, 784]; send image files"),
    "floats-flat": (numbers([1, 28, 28], ZEROS), "the input's shape is [1, 28, 28]; send"),
    "floats-few": (numbers([1, 1, 28, 28], ZEROS[1:]), "the input's shape [1, 1, 28, 28] has 784 values"),
    "floats-text": (numbers([1, 1, 28, 28], ["0"] * 784), "the FP32 data is not a list of numbers"),
    "floats-true": (numbers([1, 1, 28, 28], [True] * 784), "the FP32 data is not a list of numbers"),
    "floats-null": (numbers([1, 1, 28, 28], [None] * 784), "the FP32 data is not a list of numbers"),
    "floats-mixed": (numbers([1, 1, 28, 28], [[0] * 28] * 27 + [0] * 28), "the input's shape [1, 1, 28, 28]"),
    "floats-infinite": (
        json.dumps(numbers([1, 1, 28, 28], ZEROS)).replace("0]", "1e999]").encode(), "a value is not a number"
    ),
    "floats-huge": (numbers([1, 1, 28, 28], [3e38] * 784), "a value is not a number up to 1,000,000"),
    "floats-huge-whole": (numbers([1, 1, 28, 28], [10**400] * 784), "a value is not a number up to"),
    "id": ({"id": 7, **v2()}, "id is 7, not text"),
    "output": ({**v2(), "outputs": [{"name": "logits"}]}, "there is no output an object with"),
    "outputs": ({**v2(), "outputs": "label"}, "there is no output 'label'; ask for label, index"),
    "classification": (
        {**v2(), "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
        "classification is not supported; request the output probabilities",
    ),
    "v2-parameters": ({**v2(), "parameters": 3}, "parameters is 3, not an object"),
    "binary-size-alone": (v2(parameters={"binary_data_size": 9}), "binary_data_size is 9, but 0 bytes"),
}  # fmt: skip


def as_bytes(body) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_is_refused_alone(engine, name):
    """It gets 400 with a short message and hint; the other request of the batch is answered."""
    body, sentence = BAD_JSON[name]
    refused, good = engine.answer([{"body": as_bytes(body)}, {"body": GOOD}])
    assert (refused.status, refused.headers["content-type"]) == (BAD_REQUEST, "application/json")
    assert refused.reason.startswith(sentence)
    assert isinstance(json.loads(refused.content)["error"], str) == (b'"inputs"' in as_bytes(body))
    assert (
        "send" in refused.reason
        or "leave" in refused.reason
        or "ask" in refused.reason
        or "request" in refused.reason
        or "one" in refused.reason
    )
    assert len(refused.content) < 600
    assert (good.status, good.body) == (OK, "3")


def test_null_is_nothing_said(engine):
    """An option that is null counts as left out."""
    asked = json.dumps({**json.loads(json_of(GOOD)), "parameters": {"top_k": None}}).encode()
    plain, null = engine.answer([{"body": json_of(GOOD)}, {"body": asked}])
    assert null.body == plain.body


def test_bad_json_is_refused_everywhere_alike(everywhere):
    """Every server gives the handler's own answer, and no worker dies.

    At a V2 address it has the form of V2's errors, elsewhere the usual form. TorchServe does not tell the
    handler the address, so there the body decides.
    """
    for name, (body, sentence) in BAD_JSON.items():
        for server, url in everywhere.items():
            reply, other = (post(url + path, as_bytes(body)) for path in (V2, V1))
            assert (reply.status_code, other.status_code) == (BAD_REQUEST, BAD_REQUEST), name
            if server != "TorchServe":
                assert said(reply).startswith(sentence), name
                assert said(other).startswith(sentence), name
            elif b'"inputs"' in as_bytes(body):
                assert said_in_v2(reply).startswith(sentence), name
            else:
                assert reply.json()["error"]["message"], name
    for url in everywhere.values():
        assert labels_of(post(url + V1, json_of(GOOD))) == ["3"]


def behind(head: dict, data: bytes, length: object = None) -> tuple[bytes, dict]:
    """Return a body of JSON followed by bytes, and the header with the length of the JSON."""
    text = json.dumps(head).encode()
    said_length = str(len(text) if length is None else length)
    return text + data, {"Inference-Header-Content-Length": said_length}


SIZED = {"parameters": {"binary_data_size": 8}}
BAD_BYTES = {
    "length-text": (behind(v2(), b"", "x"), "inference-header-content-length is 'x', but the body has"),
    "length-negative": (behind(v2(), b"", -1), "inference-header-content-length is '-1'"),
    "length-beyond": (behind(v2(), b"", 10_000), "inference-header-content-length is '10000'"),
    "length-huge": (behind(v2(), b"", "9" * 300), "inference-header-content-length is '999"),
    "length-short": (behind(v2(), b"", 5), "the body is not valid JSON ("),
    "nobody-says-of-what": (behind(v2(), b"12345678"), "8 bytes follow the JSON, but the input has no bi"),
    "size-wrong": (behind(v2(**SIZED), b"123456789"), "binary_data_size is 8, but 9 bytes follow the JSON"),
    "size-true": (behind(v2(parameters={"binary_data_size": True}), b"1"), "binary_data_size is true, but 1"),
    "element-cut": (behind(v2(**SIZED), struct.pack("<I", 99) + b"1234"), "the bytes after the JSON end"),
    "element-length-cut": (behind(v2(parameters={"binary_data_size": 2}), b"12"), "the bytes after"),
    "elements-too-many": (behind(v2(shape=[1, 65], parameters={"binary_data_size": 260}), bytes(260)),
        "the input's shape has 65 images; send at most 64"),
    "elements-uncounted": (behind(v2(parameters={"binary_data_size": 400_000}), bytes(400_000)),
        "the input's shape [1] has 1 elements, but its data has 65"),
    "elements": (behind(v2(**SIZED), bytes(8)), "the input's shape [1] has 1 elements, but its data has 2"),
    "no-image": (behind(v2(**SIZED), struct.pack("<I", 4) + b"1234"), "element 0: cannot read 4 bytes"),
    "floats": (behind(v2(datatype="FP32", shape=[1, 1, 28, 28], **SIZED), bytes(8)),
        "the input's shape [1, 1, 28, 28] has 784 values, but its data has 2"),
    "floats-nan": (behind({"inputs": [{"datatype": "FP32", "shape": [1, 1, 28, 28],
                                       "parameters": {"binary_data_size": 3136}}]},
                          np.full(784, np.nan, np.float32).tobytes()), "a value is not a number up to"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_bytes_behind_the_json_are_refused(engine, name):
    """Wrong lengths, truncated elements and invalid values get 400 for that request only."""
    (body, headers), sentence = BAD_BYTES[name]
    refused, good = engine.answer([{"body": body}, {"body": GOOD}], [headers, {}])
    assert refused.status == BAD_REQUEST
    assert json.loads(refused.content)["error"].startswith(sentence)
    assert good.body == "3"


def test_any_spoilt_json_is_answered_or_refused(engine):
    """JSON with bytes changed, lost or doubled gets a label or an error, never a 500."""
    noise = random.Random(0)  # noqa: S311 no secret
    good = [json_of(DIGITS["1"], parameters={"top_k": 3}), json.dumps(v2()).encode(),
            json.dumps(numbers([1, 1, 28, 28], ZEROS)).encode()]  # fmt: skip
    spoilt = []
    for _ in range(1500):
        body = bytearray(noise.choice(good))
        for _ in range(noise.randrange(1, 4)):
            place, length = noise.randrange(len(body)), noise.choice([0, 1, 1, 5, 40])
            body[place : place + length] = noise.choice(
                [b"", b"[", b"]", b"{", b"}", b",", b'"', b"1e9", b"null", b"-"]
            )
        spoilt.append(bytes(body))
    statuses = [answer.status for start in range(0, len(spoilt), 16)
                for answer in engine.predict(spoilt[start : start + 16])]  # fmt: skip
    assert set(statuses) == {OK, BAD_REQUEST}
