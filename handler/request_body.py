"""From one request, as TorchServe hands it over, to the files in it and what else it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from images import SEND
from reason import Reason
from refusal import BadImage, Refusal

RAW_BODY = "body"
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
# A small picture keeps a worker busy for 0.1 ms with all that there is to it, so many for as long as two of
# its batches of 16: whoever sends one meanwhile hardly notices. Together they may have as many pixels as one.
MOST_PICTURES = 64
# Of a form's fields that are too many, so many are named, each by so many characters: TorchServe ends a
# worker whose answer is above max_response_size.
NAMED, NAME = 5, 40
# With what a JSON body may begin, and no picture does.
JSON_STARTS = frozenset(b"{[ \t\r\n")


def picture_of(row: Mapping[str, Any], content_type: str | None = None) -> bytes:
    """Return the one file of a request: its raw body, or its one form field of whatever name.

    Raises BadImage where there is none, or where it is no bytes.
    """
    if RAW_BODY in row:
        return _as_bytes(row[RAW_BODY])
    if (content_type or "").lower().startswith(FORM):
        # The server reads such a body as text fields, up to its first line break: it is gone.
        raise BadImage(
            f"the picture came as {FORM}, which cannot hold one",
            "send it with curl -T FILE, or with the header Content-Type: application/octet-stream; JSON with "
            "curl --json",
            Reason.WEB_FORM,
        )
    return _as_bytes(next(iter(row.values()), b""))


def parts_of(
    row: Mapping[str, Any], content_type: str | None, options: Sequence[str]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return a request's files by the names of their fields, in order, and its options by theirs.

    `options` are names of fields that say how to answer. A lone field is the picture, whatever its name.
    TorchServe's address /invocations hands over a query as fields, too, beside the raw body.
    Raises BadImage, and Refusal where there are more than MOST_PICTURES.
    """
    kind = (content_type or "").lower()
    is_form = kind.startswith((FORM, MULTIPART))
    if len(row) == 1 or (kind.startswith(FORM) and RAW_BODY not in row):
        return {"": picture_of(row, content_type)}, {}
    told = {name: _as_text(value) for name, value in row.items() if name in options}
    if RAW_BODY in row and not is_form:
        return {"": _as_bytes(row[RAW_BODY])}, told
    fields = {name: value for name, value in row.items() if name not in options}
    if len(fields) > MOST_PICTURES:
        raise too_many(f"the form has the fields {_named(sorted(fields))}", len(fields))
    files = {name: _as_bytes(value) for name, value in fields.items()}
    return files or {"": b""}, told


def too_many(what: str, count: int) -> Refusal:
    """Return the refusal of a request with too many pictures."""
    return Refusal(
        f"{what}: {count:,} pictures", f"send at most {MOST_PICTURES} a request", Reason.TOO_MANY
    )


def shown(name: str) -> str:
    """Return a field's name, cut off where it is long."""
    return name if len(name) <= NAME else f"{name[:NAME]}…"


def is_json(body: bytes | bytearray) -> bool:
    """Tell whether a body is JSON and no picture, by its first byte."""
    return body[:1] != b"" and body[0] in JSON_STARTS


def http_headers(mixed: Mapping[str, Any]) -> dict[str, str]:
    """Return the HTTP headers by lower-case name: TorchServe mixes them with the types of form fields."""
    return {name.lower(): value for name, value in mixed.items() if isinstance(value, str)}


def _named(fields: Sequence[str]) -> str:
    named = ", ".join(map(shown, fields[:NAMED]))
    return named + (f" and {len(fields) - NAMED:,} more" if len(fields) > NAMED else "")


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, str):  # a text/* body, where decode_input_request is on
        return value.encode("utf-8")
    raise BadImage(f"the request holds JSON ({type(value).__name__}), no picture", SEND, Reason.JSON)


def _as_text(value: Any) -> str:
    return _as_bytes(value).decode("utf-8", "replace")
