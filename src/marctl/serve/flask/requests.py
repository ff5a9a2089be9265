"""Convert a Flask request to the core's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder

from classifier.headers import PROTOCOL, QUERY, V2
from classifier.protocols.body import FORM, MULTIPART
from marctl.serve.status_pages import is_v2

# Each part of a form costs time, and a form needs few: 64 images and some options.
MAX_PARTS = 1000
# The protocol of all addresses except V2's.
OTHER = "other"


def fields_of(request: Request, *, explain: bool = False) -> dict[str, Any]:
    """Return the fields of the core's `Request`: body or form, headers, and whether to explain.

    A form of type application/x-www-form-urlencoded cannot hold an image: it has no fields here.
    Raises RequestEntityTooLarge.
    """
    headers = {
        name.lower(): value for name, value in request.headers if name.lower() not in (QUERY, PROTOCOL)
    }
    headers[PROTOCOL] = V2 if is_v2(request.path) else OTHER
    if query := request.query_string.decode("latin-1"):
        headers[QUERY] = query
    body = request.get_data(cache=False)
    # Werkzeug silently cuts a chunked body, which has no Content-Length, at the limit.
    if request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    boundary = request.mimetype_params.get("boundary", "")
    form: dict[str, bytes] | None = None
    if request.mimetype == FORM:
        form = {}
    elif request.mimetype == MULTIPART and boundary:
        form = dict(_parts(body, boundary.encode("utf-8")))
    return {"body": b"" if form is not None else body, "headers": headers, "fields": form, "explain": explain}


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of each complete part.

    Flask's `request.form` will not do: it decodes parts without a file name as text, and they may be images.
    """
    decoder = _Decoder(boundary, max_parts=MAX_PARTS)
    decoder.receive_data(body)
    decoder.receive_data(None)
    name, chunks = "", [b""]
    try:
        while not isinstance(event := decoder.next_event(), Epilogue):
            if isinstance(event, Field | File):
                name, chunks = event.name or "", []
            elif isinstance(event, Data):
                chunks.append(event.data)
                if name and not event.more_data:
                    yield name, b"".join(chunks)
    except ValueError:  # the form ends in the middle of a part
        return


class _Decoder(MultipartDecoder):
    """Werkzeug's decoder, which here also accepts file names that are not UTF-8."""

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        return super()._parse_headers(data.decode("utf-8", "replace").encode("utf-8"))
