"""From one request, as TorchServe hands it over, to the bytes of its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from images import SEND, BadImage
from reason import Reason

RAW_BODY = "body"
FORM = "application/x-www-form-urlencoded"
# Of a form's fields that are too many, so many are named, each by so many characters: TorchServe ends a
# worker whose answer is above max_response_size.
NAMED, NAME = 5, 40


def picture_of(row: Mapping[str, Any], content_type: str | None = None) -> bytes:
    """Return the picture of a request: its raw body, or its one form field of whatever name.

    Raises BadImage where there is none, where it is no bytes, or where there are several.
    """
    if len(row) > 1:
        fields = _named(sorted(row))
        raise BadImage(f"the form has the fields {fields}; send one picture a request", Reason.SEVERAL_FIELDS)
    if RAW_BODY in row:
        return _as_bytes(row[RAW_BODY])
    if (content_type or "").lower().startswith(FORM):
        # The server reads such a body as text fields, up to its first line break: it is gone.
        raise BadImage(
            f"the picture came as {FORM}, which cannot hold one; send it with curl -T FILE, or with "
            "the header Content-Type: application/octet-stream",
            Reason.WEB_FORM,
        )
    return _as_bytes(next(iter(row.values()), b""))


def http_headers(mixed: Mapping[str, Any]) -> dict[str, str]:
    """Return the HTTP headers by lower-case name: TorchServe mixes them with the types of form fields."""
    return {name.lower(): value for name, value in mixed.items() if isinstance(value, str)}


def _named(fields: Sequence[str]) -> str:
    shown = [name if len(name) <= NAME else f"{name[:NAME]}…" for name in fields[:NAMED]]
    more = f" and {len(fields) - NAMED:,} more" if len(fields) > NAMED else ""
    return f"{', '.join(shown)}{more}"


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, str):  # a text/* body, where decode_input_request is on
        return value.encode("utf-8")
    raise BadImage(f"the request holds JSON ({type(value).__name__}), no picture; {SEND}", Reason.JSON)
