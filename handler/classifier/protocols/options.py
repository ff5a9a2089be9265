"""The form in which a client wants its answer, from its Accept header, its query and its body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from ..errors import JSON, BadRequest, Reason
from ..headers import QUERY
from ..messages import AnswerForm

FORMAT, TOP_K, SHOW_INPUT, TARGET = "format", "top_k", "show_input", "target"
# TorchServe's /invocations reads the model's name from this; the handler ignores it.
MODEL_NAME = "model_name"
OPTIONS = (FORMAT, TOP_K, SHOW_INPUT, TARGET)
FIELDS = (*OPTIONS, MODEL_NAME)
ACCEPT = "accept"
PLAIN = "text/plain"
# The usual Accept headers that ask for nothing but the default.
ANYTHING = frozenset((None, "", "*/*", PLAIN))
TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def answer_form(headers: Mapping[str, str], sent: Mapping[str, Any], labels: tuple[str, ...]) -> AnswerForm:
    """Return what a client wants: its query overrides `sent`, from its body, which overrides Accept.

    Raises BadRequest if one of them is invalid.
    """
    wants_json, options = accepted(headers.get(ACCEPT, ""))
    query = dict(parse_qsl(headers.get(QUERY, ""), keep_blank_values=True))
    given = {name: value for name, value in sent.items() if value is not None} | query
    options |= {name: _text(value) for name, value in given.items() if name in OPTIONS}
    top_k, show_input = _top_k(options, len(labels)), _truth(options)
    if FORMAT in options:
        wants_json = _is_json(options[FORMAT])
    elif top_k or show_input:  # text cannot hold these
        wants_json = True
    return AnswerForm(wants_json, top_k, show_input, _target(options, labels))


def accepted(accept: str) -> tuple[bool | None, dict[str, str]]:
    """Return whether an Accept header prefers JSON to text, or None, and its options for JSON."""
    qualities: dict[str, float] = {}
    options: dict[str, str] = {}
    for wish in accept.split(","):
        kind, *words = (word.strip() for word in wish.split(";"))
        pairs = (word.partition("=") for word in words)
        parameters = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
        qualities[kind.lower()] = _quality(parameters.pop("q", "1"))
        if kind.lower() == JSON:
            options = {name: value for name, value in parameters.items() if name in OPTIONS}
    json, plain = qualities.get(JSON, 0), qualities.get(PLAIN, 0)
    return (json >= plain if json or plain else None), options


def _quality(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 1.0


def _text(value: Any) -> str:
    """Return an option of any type as a query would write it."""
    return value if isinstance(value, str) else repr(value).lower()


def _is_json(value: str) -> bool:
    if value.lower() not in ("json", "text"):
        raise _invalid(FORMAT, value, "json or text")
    return value.lower() == "json"


def _top_k(options: Mapping[str, str], most: int) -> int:
    value = options.get(TOP_K)
    if value is None:
        return 0
    # The length is checked first: no number of labels has a thousand digits.
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(most))
    if not (is_number and 0 < int(value) <= most):
        raise _invalid(TOP_K, value, f"a whole number from 1 to {most}")
    return int(value)


def _truth(options: Mapping[str, str]) -> bool:
    value = options.get(SHOW_INPUT, "false")
    if value.lower() not in TRUTHS:
        raise _invalid(SHOW_INPUT, value, "true or false")
    return TRUTHS[value.lower()]


def _target(options: Mapping[str, str], labels: tuple[str, ...]) -> int | None:
    value = options.get(TARGET)
    if value is None:
        return None
    if value not in labels:
        few = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")  # noqa: PLR2004 enough for a message
        raise _invalid(TARGET, value, f"one of the labels: {few}")
    return labels.index(value)


def _invalid(option: str, value: str, hint: str) -> BadRequest:
    short = value if len(value) <= 40 else value[:40] + "..."  # noqa: PLR2004 enough for a message
    return BadRequest(f"{option} is {short!r}", f"send {option} as {hint}", Reason.OPTION)
