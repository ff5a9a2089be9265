"""Parse a JSON body, without the costs that hostile JSON can cause."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..errors import BadRequest, Reason

# How many characters of the input an error repeats.
SHOWN = 60


def read_json(body: bytes, most: int) -> dict[str, Any]:
    """Return a JSON object of at most `most` values; NaN and infinities are refused.

    Raises BadRequest if it is malformed, too deep, too large or not an object.
    """
    # In Python a list of empty lists takes thirty times its bytes, so values are counted before parsing.
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if values > most:
        raise bad_json(f"the JSON has about {values:,} values", f"send at most {most:,} per request")
    try:
        content = json.loads(body, parse_constant=_not_json)
    except RecursionError as error:
        raise bad_json("the JSON is nested too deeply", "send no more levels than needed") from error
    except ValueError as error:  # UnicodeDecodeError and a number of 4,300 digits among them
        message = f"the body is not valid JSON ({_short(str(error))})"
        raise bad_json(message, "send JSON, or the bytes of an image") from error
    if not isinstance(content, dict):
        raise bad_json(
            f"the JSON is {shown(content)}, not an object", 'send {"instances": [{"data": "<base64>"}]}'
        )
    return content


def bad_json(message: str, hint: str) -> BadRequest:
    """Return the error for a JSON body."""
    return BadRequest(message, hint, Reason.JSON)


def shown(value: Any) -> str:
    """Return a value for an error message, shortened if it is long."""
    # Long values are not formatted in full: that might be megabytes of text.
    match value:
        case dict() | list() if not value:
            return "an empty object" if isinstance(value, dict) else "an empty list"
        case dict():
            return f"an object with the keys {_short(', '.join(map(repr, list(value)[:10])))}"
        case list():
            return f"a list of length {len(value):,}"
        case str():
            return _short(repr(value[:SHOWN])) + ("..." if len(value) > SHOWN else "")
        case _:
            return _short(json.dumps(value))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
