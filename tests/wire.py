"""Requests as bytes on the wire, good and bad: what any server of the archive must answer alike."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from conftest import DIGITS
from pictures import VARIANTS, bad_pictures, opened

GOOD = DIGITS["3"]
PREDICTIONS = "/predictions/convnet"
BOUNDARY = "a-boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
FILE = 'name="data"; filename="a.png"'


class Asked(NamedTuple):
    """One request."""

    body: bytes = GOOD
    headers: Mapping[str, str] = MappingProxyType({})
    path: str = PREDICTIONS
    method: str = "POST"


def form(*parts: tuple[str, bytes], end: str = "--", kind: str = "image/png") -> bytes:
    """Return a multipart body of parts (what Content-Disposition says, content)."""
    head = f"--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Disposition: form-data; "
    body = b"".join(head.encode() + said.encode() + b"\r\n\r\n" + data + b"\r\n" for said, data in parts)
    return body + f"--{BOUNDARY}{end}\r\n".encode() if end else body


def _typed(kind: str, body: bytes = GOOD) -> Asked:
    return Asked(body, {"Content-Type": kind})


def _urlencoded(body: bytes) -> Asked:
    return Asked(body, URLENCODED)


PICTURES = {
    **{f"variant-{name}": Asked(make(opened(DIGITS["5"]))) for name, make in VARIANTS.items()},
    **{f"bad-{name}": Asked(body) for name, (body, _) in bad_pictures(GOOD).items()},
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
    **PICTURES,
    **RAW,
    **{f"form-{name}": asked for name, asked in FORMS.items()},
    **{f"web-form-{name}": asked for name, asked in WEB_FORMS.items()},
    **PATHS,
    "ping": Asked(b"", path="/ping", method="GET"),
}
