"""Good and bad requests as bytes on the wire; all servers of the archive must answer them alike."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from bench.load.images import VARIANTS, opened
from tests.conftest import DIGITS
from tests.support.images import bad_images

GOOD = DIGITS["3"]
PREDICTIONS = "/predictions/convnet"
BOUNDARY = "a-boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
FILE = 'name="data"; filename="a.png"'


def said(reply: requests.Response) -> str:
    """Return the text of an error, after checking its form: this project's, or the V2 protocol's."""
    assert reply.headers["Content-Type"] == "application/json"
    told = reply.json()
    if urlsplit(reply.url).path.startswith("/v2/"):
        return said_in_v2(reply)
    assert (set(told), set(told["error"])) == ({"error"}, {"code", "message", "hint"})
    error = told["error"]
    assert error["code"] == reply.status_code
    assert error["message"]
    assert error["hint"]
    return f"{error['message']}; {error['hint']}"


def said_in_v2(reply: requests.Response) -> str:
    """Return the text of an error in the V2 protocol's form."""
    told = reply.json()
    assert set(told) == {"error"}
    assert isinstance(told["error"], str)
    message, _, hint = told["error"].partition("; ")
    assert message
    assert hint
    text: str = told["error"]
    return text


class Asked(NamedTuple):
    """One request."""

    body: bytes = GOOD
    headers: Mapping[str, str] = MappingProxyType({})
    path: str = PREDICTIONS
    method: str = "POST"


def form(*parts: tuple[str, bytes], end: str = "--", kind: str = "image/png") -> bytes:
    """Return a multipart body; each part is (Content-Disposition parameters, content)."""
    head = f"--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Disposition: form-data; "
    body = b"".join(head.encode() + said.encode() + b"\r\n\r\n" + data + b"\r\n" for said, data in parts)
    return body + f"--{BOUNDARY}{end}\r\n".encode() if end else body


def _typed(kind: str, body: bytes = GOOD) -> Asked:
    return Asked(body, {"Content-Type": kind})


def _urlencoded(body: bytes) -> Asked:
    return Asked(body, URLENCODED)


IMAGES = {
    **{f"variant-{name}": Asked(make(opened(DIGITS["5"]))) for name, make in VARIANTS.items()},
    **{f"bad-{name}": Asked(body) for name, (body, _) in bad_images(GOOD).items()},
    **{f"digit-{digit}": Asked(body, method="PUT") for digit, body in DIGITS.items()},
}
RAW = {
    "png-as-json": _typed("application/json"),
    "png-as-text": _typed("text/plain"),
    "png-as-nonsense": _typed("x"),
    "json": _typed("application/json", b'{"instances": []}'),
    "broken-json": _typed("application/json", b"{"),
    "text": _typed("text/plain; charset=utf-8", "häh".encode()),
    "gzip-is-not-undone": Asked(headers={"Content-Encoding": "gzip"}),
    "header-describe": Asked(headers={"describe": "True"}),
    "header-explain": Asked(headers={"explain": "True"}),
    "header-accept": Asked(headers={"Accept": "application/json"}),
}
FORMS = {
    "file": Asked(form((FILE, GOOD)), FORM),
    "put": Asked(form((FILE, GOOD)), FORM, method="PUT"),
    "field-without-a-file-name": Asked(form(('name="data"', GOOD)), FORM),
    "field-in-latin-1": Asked(form(('name="data"', GOOD), kind="text/plain; charset=iso-8859-1"), FORM),
    "text": Asked(form(('name="data"', b"hello")), FORM),
    "named-body": Asked(form(('name="body"; filename="a"', GOOD)), FORM),
    "named-content-type": Asked(form(('name="content-type"; filename="a"', GOOD)), FORM),
    "named-describe": Asked(form(('name="describe"; filename="a"', GOOD)), FORM),
    "two-fields": Asked(form(('name="b"', GOOD), ('name="ä"', GOOD)), FORM),
    "last-of-one-name": Asked(form(('name="a"', b"hello"), ('name="a"', GOOD)), FORM),
    "last-of-one-name-bad": Asked(form(('name="a"', GOOD), ('name="a"', b"hello")), FORM),
    "empty-part": Asked(form((FILE, b"")), FORM),
    "no-part": Asked(form(), FORM),
    "no-body": Asked(b"", FORM),
    "cut-short": Asked(form((FILE, GOOD), end=""), FORM),
    "second-cut-short": Asked(form((FILE, GOOD), ('name="b"', GOOD), end=""), FORM),
    "garbage": Asked(b"garbage", FORM),
    "preamble": Asked(b"preamble\r\n" + form((FILE, GOOD)), FORM),
    "line-before": Asked(b"\r\n" + form((FILE, GOOD)), FORM),
    "epilogue": Asked(form((FILE, GOOD)) + b"epilogue", FORM),
    "other-boundary": Asked(form((FILE, GOOD)), {"Content-Type": "multipart/form-data; boundary=other"}),
    "no-boundary": Asked(form((FILE, GOOD)), {"Content-Type": "multipart/form-data"}),
    "quoted-boundary": _typed(f'multipart/form-data; boundary="{BOUNDARY}"', form((FILE, GOOD))),
    "mixed": _typed(f"multipart/mixed; boundary={BOUNDARY}", form((FILE, GOOD))),
    "upper-case": _typed(f"Multipart/Form-Data; boundary={BOUNDARY}", form((FILE, GOOD))),
    "file-name-not-utf-8": Asked(form((FILE, GOOD)).replace(b"a.png", b"\xe9.png"), FORM),
    "base64": Asked(form((FILE, b"aGVsbG8=")), FORM),
    "query": Asked(form((FILE, GOOD)), FORM, f"{PREDICTIONS}?model=other"),
}


def json_of(*images: bytes, **more: object) -> bytes:
    """Return a KServe V1 request body with these images."""
    instances = [{"data": base64.b64encode(image).decode()} for image in images]
    return json.dumps({"instances": instances, **more}).encode()


def accepting(accept: str, body: bytes = GOOD) -> Asked:
    """Return a request with this Accept header."""
    return Asked(body, {"Accept": accept})


JSON_FORMS = {
    "v1": Asked(json_of(GOOD, DIGITS["2"])),
    "v1-parameters": Asked(json_of(GOOD, parameters={"top_k": 2, "show_input": True})),
    "v1-as-text": accepting("text/plain", json_of(GOOD, DIGITS["2"])),
    "v1-one-of-two-bad": Asked(json_of(GOOD, b"hello")),
    "v1-too-many": Asked(json_of(*[GOOD] * 65)),
    "invocations": Asked(json_of(GOOD), path="/invocations"),
    "invocations-raw": Asked(path="/invocations"),
    "invocations-query": Asked(path="/invocations?top_k=3&show_input=1&other=x"),
    "invocations-model": Asked(path="/invocations?model_name=convnet&format=json"),
    "invocations-no-model": Asked(path="/invocations?model_name=other"),
    "v1-address": Asked(json_of(GOOD), path="/v1/models/convnet:predict"),
    "v1-no-model": Asked(json_of(GOOD), path="/v1/models/other:predict"),
    "v2-bytes": Asked(
        json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES",
                                "data": [base64.b64encode(GOOD).decode()]}]}).encode(),
        path="/v2/models/convnet/infer",
    ),
    "v2-no-model": Asked(b"{}", path="/v2/models/other/infer"),
    "v2-nothing": Asked(b'{"inputs": []}', path="/v2/models/convnet/infer"),
    "accept-json": accepting("application/json"),
    "accept-all": accepting("application/json; top_k=10; show_input=true"),
    "accept-browser": accepting("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    "accept-bad": accepting("application/json; top_k=11"),
    "form-options": Asked(form((FILE, GOOD), ('name="top_k"', b"3"), kind="text/plain"), FORM),
    "form-json": Asked(
        form(('name="b"', GOOD), ('name="a"', DIGITS["1"])), {**FORM, "Accept": "application/json"}
    ),
    "form-one-of-two-bad": Asked(form(('name="b"', GOOD), ('name="a"', b"no")), FORM),
    "form-too-many": Asked(form(*((f'name="{number}"', GOOD) for number in range(65))), FORM),
}  # fmt: skip
WEB_FORMS = {
    "png": _urlencoded(GOOD),
    "empty": _urlencoded(b""),
    "one-field": _urlencoded(b"a=1"),
    "two-fields": _urlencoded(b"a+b=1&%63=2"),
    "field-named-body": _urlencoded(b"body=%89P+NG"),
    "line-break": _urlencoded(b"a=1\nb=2&c=3"),
    "line-break-first": _urlencoded(b"\nb=2&c=3"),
    "last-without-value": _urlencoded(b"a=1&b"),
    "first-without-value": _urlencoded(b"a&b="),
    "upper-case": _typed("Application/X-WWW-Form-Urlencoded", b"a=1"),
    "charset": _typed("application/x-www-form-urlencoded; charset=utf-8", b"a=1&b=2"),
}
PATHS = {
    path: Asked(path=path)
    for path in (
        f"{PREDICTIONS}?a=1",
        f"{PREDICTIONS}?body=hello",
        f"{PREDICTIONS}?%FF",
        f"{PREDICTIONS}/",
        f"{PREDICTIONS}//",
        f"{PREDICTIONS}//x",
        f"{PREDICTIONS}/1.0",
        f"{PREDICTIONS}/1.0/",
        f"{PREDICTIONS}/1.0/x",
        f"{PREDICTIONS}%2F1.0",
        f"{PREDICTIONS}/2.0",
        "/predictions/conv%6eet",
        "/predictions/other",
        "/predictions/other/1.0",
        "/predictions/a%20b%22%C3%A9",
        "/predictions",
        "/predictions/",
        "/Predictions/convnet",
        "/nothing",
    )
}
TABLE = {
    **IMAGES,
    **RAW,
    **{f"form-{name}": asked for name, asked in FORMS.items()},
    **JSON_FORMS,
    **{f"web-form-{name}": asked for name, asked in WEB_FORMS.items()},
    **PATHS,
    "ping": Asked(b"", path="/ping", method="GET"),
}
# Only TorchServe does these: it takes a client's header for its own marker, does not read a form that has a
# preamble or an upper-case type, and takes a field named body for a raw body. The values are Flask's status.
QUIRKS = {
    "header-describe": 200,
    "form-preamble": 200,
    "form-upper-case": 200,
    "web-form-field-named-body": 400,
}
