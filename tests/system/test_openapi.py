"""The OpenAPI document is true: real requests and responses are checked against it."""

import json
import re
from urllib.parse import urlsplit

import numpy as np
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.protocols.body import MOST_IMAGES
from classifier.protocols.kserve_v2 import JSON_LENGTH
from marctl.serve.status_pages import DOOR, FLASK, description
from tests.conftest import DIGITS
from tests.support.openapi import DOCUMENT, check, resolved
from tests.support.waiting import PATIENCE
from tests.support.wire import GOOD, TABLE, Asked, json_of

V1, V2 = "/v1/models/convnet:predict", "/v2/models/convnet/infer"
V2_VERSION = "/v2/models/convnet/versions/1.0/infer"
JSON = "application/json"


def operation_of(path: str, method: str) -> dict | None:
    """Return the document's operation for a method and a path."""
    for template, operations in DOCUMENT["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", r"[\\w.-]+", re.escape(template))
        if re.fullmatch(pattern, urlsplit(path).path):
            return operations.get(method.lower())
    return None


def check_answer(operation: dict, reply: requests.Response) -> None:
    """Check a response's status, type and body against the document."""
    assert str(reply.status_code) in operation["responses"], reply.text
    response = resolved(operation["responses"][str(reply.status_code)])
    kind = reply.headers["Content-Type"].partition(";")[0]
    assert kind in response["content"]
    body = reply.json() if kind == JSON else reply.text
    check(body, response["content"][kind]["schema"])


def send(url: str, asked: Asked) -> requests.Response:
    return requests.request(
        asked.method, url + asked.path, data=asked.body, headers=asked.headers, timeout=PATIENCE
    )


def test_each_server_hands_out_its_own(door, flask_server):
    """The proxy's document leaves out what only Flask has."""
    for url, kind in ((door, DOOR), (flask_server.url, FLASK)):
        if url is not None:
            reply = requests.get(f"{url}/openapi.json", timeout=PATIENCE)
            assert (reply.headers["Content-Type"], reply.json()) == (JSON, description(kind))
    assert set(description(FLASK)["paths"]) - set(description(DOOR)["paths"]) == {"/test", "/contract"}


# It does not cover unknown addresses, or TorchServe's own header, which the proxy removes.
KNOWN = {
    name: asked
    for name, asked in TABLE.items()
    if operation_of(asked.path, asked.method) and "describe" not in asked.headers
}


def test_answers_are_as_the_document_says(door, flask_server):
    """Each server's response to good and bad requests of every form matches it."""
    assert len(KNOWN) > 100
    for url in filter(None, (door, flask_server.url)):
        for name, asked in KNOWN.items():
            try:
                check_answer(operation_of(asked.path, asked.method), send(url, asked))
            except Exception as error:
                raise AssertionError(f"{name} at {url}") from error


ZEROS = json.dumps(
    {"id": "7", "inputs": [{"shape": [-1, 1, 28, 28], "datatype": "FP32", "data": [0] * 1568}]}
).encode()
MORE = {
    "query": Asked(path="/predictions/convnet?format=json&top_k=10&show_input=true"),
    "query-bad": Asked(path="/predictions/convnet?top_k=11"),
    "version": Asked(path="/predictions/convnet/1.0?format=json", method="PUT"),
    "several": Asked(json_of(*DIGITS.values(), parameters={"top_k": 2, "show_input": True}), path=V1),
    "explanation-bad": Asked(b"no", path="/explanations/convnet"),
    "explanation-no-model": Asked(path="/explanations/other"),
    "explanation-version-bad": Asked(b"no", path="/explanations/convnet/1.0"),
    "v1-as-text": Asked(json_of(*DIGITS.values()), {"Accept": "text/plain"}, path=V1),
    "v1-query": Asked(json_of(*DIGITS.values()), path=f"{V1}?format=text"),
    "wrong-method": Asked(path="/predictions/convnet", method="GET"),
    "wrong-method-v2": Asked(path=V2, method="GET"),
    "wrong-method-v2-version": Asked(path=V2_VERSION, method="GET"),
    "too-large": Asked(bytes(2**25 + 1)),
    "v2-all": Asked(ZEROS, path=V2),
    "v2-version": Asked(ZEROS, path=V2_VERSION),
    "v2-no-version": Asked(ZEROS, path=V2_VERSION.replace("1.0", "2.0")),
    "v2-too-large": Asked(bytes(2**25 + 1), path=V2),
    "v2-bad": Asked(b"no", path=V2),
    "v2-version-bad": Asked(b"{", path=V2_VERSION),
    "ping": Asked(b"", path="/ping", method="GET"),
    **{path: Asked(b"", path=path, method="GET") for path in (
        "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/v1/models/convnet",
        "/v1/models/other", "/v2", "/openapi.json",
        *(f"/v2/models/{model}{of}" for model in (
            "convnet", "other", "convnet/versions/1.0", "convnet/versions/2.0") for of in ("", "/ready")))},
}  # fmt: skip
FLASKS = {
    "test-bad": Asked(b"no", path="/test"),
    "contract": Asked(b"", path="/contract", method="GET"),
}


def test_every_operation_is_asked_and_told_of(door, flask_server):
    """Each operation is requested on both servers; each address that refuses a method documents 405."""
    asked_for = set()
    for url in filter(None, (door, flask_server.url)):
        for name, asked in (MORE | (FLASKS if url == flask_server.url else {})).items():
            method = "post" if name.startswith("wrong-method") else asked.method
            operation = operation_of(asked.path, method)
            asked_for.add(operation["operationId"])
            check_answer(operation, send(url, asked))
    described = {
        one["operationId"] for path in DOCUMENT["paths"].values() for verb, one in path.items()
        if verb in ("get", "post", "put")
    }  # fmt: skip
    by_the_table = {operation_of(one.path, one.method)["operationId"] for one in KNOWN.values()}
    assert described == asked_for | by_the_table


def test_explanation_is_as_the_document_says(engine):
    """The handler's own answer is used here, because a worker would load torch."""
    [answer] = engine.answer([{"body": GOOD}], [{"explain": "True"}])
    check(json.loads(answer.content), {"$ref": "#/components/schemas/Explanation"})


def test_articles_request_is_as_the_document_says(flask_server, engine):
    """Flask's /test, as the article's client sends it."""
    tensor = engine.handler.preprocess([engine.handler.read_pixels(GOOD)])[0]
    files = {"data": tensor.tobytes(), "metadata": json.dumps({"dims": tensor.shape})}
    reply = requests.post(f"{flask_server.url}/test", files=files, timeout=PATIENCE)
    check_answer(operation_of("/test", "post"), reply)


def test_binary_answer_is_as_the_document_says(everywhere):
    """The JSON has the length in the header, and the tensors follow it."""
    pixels = np.zeros((1, 1, 28, 28), np.float32)
    body = {"inputs": [{"shape": [1, 1, 28, 28], "datatype": "FP32", "data": pixels.ravel().tolist()}],
            "parameters": {"binary_data_output": True}}  # fmt: skip
    for url in everywhere.values():
        reply = requests.post(url + V2, json=body, timeout=PATIENCE)
        assert reply.headers["Content-Type"] == "application/octet-stream"
        length = int(reply.headers[JSON_LENGTH])
        check(json.loads(reply.content[:length]), {"$ref": "#/components/schemas/V2Response"})


B64 = st.sampled_from([json.loads(json_of(image))["instances"][0]["data"] for image in DIGITS.values()])
INSTANCE = st.one_of(
    B64,
    st.fixed_dictionaries({"data": B64}),
    st.fixed_dictionaries({"b64": B64}),
    st.fixed_dictionaries({"image_bytes": st.fixed_dictionaries({"b64": B64})}),
)
BY_SCHEMA = st.fixed_dictionaries(
    {"instances": st.lists(INSTANCE, min_size=1, max_size=MOST_IMAGES)},
    optional={
        "parameters": st.fixed_dictionaries(
            {}, optional={"top_k": st.integers(1, 10), "show_input": st.booleans(), "format": st.just("json")}
        )
    },
)


@settings(
    derandomize=True, deadline=None, database=None, max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(sent=BY_SCHEMA)
def test_what_the_schema_allows_is_answered(sent, engine):
    """Requests generated from the schema get responses that match it."""
    check(sent, {"$ref": "#/components/schemas/Instances"})
    [answer] = engine.predict([json.dumps(sent).encode()])
    assert answer.status == 200
    check(json.loads(answer.content), {"$ref": "#/components/schemas/Answers"})
