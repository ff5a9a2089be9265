"""From one HTTP request to what TorchServe hands to a handler: its fields by name, and its headers.

TorchServe 0.12.0 was asked, and tests/test_flask.py compares: the last of two fields of one name wins, a
part that is cut short is dropped. It drops the query, too; here, as behind the front door, that goes on in a
header.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, Preamble
from werkzeug.wrappers import Request

from answer_form import QUERY
from open_inference import PROTOCOL, V2
from request_body import RAW_BODY
from status_pages import is_v2

EXPLAIN = "explain"  # TorchServe's mark of what is to be explained
# As TorchServe, to which Multipart/Form-Data is a raw body.
MULTIPART, URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
# A form holds one picture, or a tensor and its metadata; each part costs time before that is seen.
MAX_PARTS = 1000
# Of addresses that are not V2's.
OTHER = "other"


class Part(NamedTuple):
    """One field of a form: its name, its own Content-Type and its bytes."""

    name: str
    kind: str
    value: bytes


def row_of(request: Request, *, explain: bool = False) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a request's fields, and its headers with the Content-Type of each field among them.

    With `explain` they are those of TorchServe's address /explanations. Raises RequestEntityTooLarge.
    """
    parts = list(_parts(_body(request), request.headers.get("Content-Type", "")))
    kinds = {part.name: {"content-type": part.kind} for part in parts}
    headers = {**kinds, **dict(request.headers), EXPLAIN: str(explain)}
    headers = {name: value for name, value in headers.items() if name.lower() not in (QUERY, PROTOCOL)}
    headers[PROTOCOL] = V2 if is_v2(request.path) else OTHER
    if query := request.query_string.decode("latin-1"):
        headers[QUERY] = query
    return {part.name: part.value for part in parts}, headers


def _body(request: Request) -> bytes:
    body = request.get_data(cache=False)
    # Of a body in chunks, whose length nobody says, Werkzeug takes what the limit allows, without a word.
    if request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return body


def _parts(body: bytes, kind: str) -> Iterator[Part]:
    boundary = parse_options_header(kind)[1].get("boundary", "")
    if kind.startswith(MULTIPART) and boundary:
        return _multipart(body, boundary.encode("utf-8"))
    if kind.lower().startswith(URLENCODED):
        return _urlencoded(body)
    return iter([Part(RAW_BODY, kind, body)])


def _multipart(body: bytes, boundary: bytes) -> Iterator[Part]:
    """Yield the parts that came whole; a field without a file's name is bytes like any other."""
    decoder = _Decoder(boundary, max_parts=MAX_PARTS)
    decoder.receive_data(body)
    decoder.receive_data(None)
    name, kind, chunks = "", "", [b""]
    try:
        while True:
            match decoder.next_event():
                case Preamble(data=data) if data.strip():  # to TorchServe then nothing is a part
                    return
                case Field() | File() as part:
                    name, kind, chunks = part.name or "", part.headers.get("content-type", ""), []
                case Data(data=data, more_data=more):
                    chunks.append(data)
                    if name and not more:
                        yield Part(name, kind, b"".join(chunks))
                case Epilogue():
                    return
    except ValueError:  # the form ends in the middle of a part
        return


class _Decoder(MultipartDecoder):
    """Werkzeug's decoder, to which a file's name that is not in UTF-8 is no reason to give up."""

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        return super()._parse_headers(data.decode("utf-8", "replace").encode("utf-8"))


def _urlencoded(body: bytes) -> Iterator[Part]:
    """Yield the fields up to the first line break: there TorchServe stops, too."""
    line = (body.lstrip().splitlines() or [b""])[0]
    *fields, last = line.split(b"&")
    if b"=" in last:  # without, TorchServe waits for more of it
        fields.append(last)
    for field in fields:
        name, _, value = field.replace(b"+", b" ").partition(b"=")
        if name:
            yield Part(unquote_to_bytes(name).decode("utf-8", "replace"), "", unquote_to_bytes(value))
