"""From the bytes of a JSON body to what it says, without the costs that JSON can have for who reads it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..errors import BadRequest, Reason

# Characters of what came that a sentence repeats.
SHOWN = 60


def read_json(body: bytes, most: int) -> dict[str, Any]:
    """Return a JSON object of at most so many values, each of them a number that JSON knows.

    Raises BadRequest where it is malformed, too deep, too large or no object.
    """
    # A list of empty lists takes Python thirty times its bytes: counted before anything is made of it.
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if values > most:
        raise bad_json(f"the JSON has about {values:,} values", f"send at most {most:,} a request")
    try:
        told = json.loads(body, parse_constant=_no_number)
    except RecursionError as error:
        raise bad_json("the JSON is nested too deep", "send the few levels that the request needs") from error
    except ValueError as error:  # UnicodeDecodeError and a number of 4,300 digits among them
        said = f"the body is no JSON ({_short(str(error))})"
        raise bad_json(said, "send JSON, or the bytes of an image") from error
    if not isinstance(told, dict):
        raise bad_json(f"the JSON is {shown(told)}, no object", 'send {"instances": [{"data": "<base64>"}]}')
    return told


def bad_json(message: str, hint: str) -> BadRequest:
    """Return the refusal of a JSON body."""
    return BadRequest(message, hint, Reason.JSON)


def shown(value: Any) -> str:
    """Return a value as it came, or its beginning."""
    # Not the text of all of it, of which there may be megabytes: only of what can be short.
    match value:
        case dict():
            return f"an object with the keys {_short(', '.join(map(repr, list(value)[:10])))}"
        case list():
            return f"a list of {len(value):,}"
        case str():
            return _short(repr(value[:SHOWN])) + ("..." if len(value) > SHOWN else "")
        case _:
            return _short(json.dumps(value))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON knows")
