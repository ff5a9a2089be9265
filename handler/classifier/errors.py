"""A request that cannot be answered as it came: what is wrong with it, and what to send instead."""

from __future__ import annotations

import json
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Self

JSON = "application/json"


class Reason(StrEnum):
    """One of a few words: the sentence that a client gets names sizes and bytes, and could not be counted."""

    EMPTY = "empty"  # a request without content
    UNKNOWN_FORMAT = "unknown_format"  # bytes that no decoder takes for its own
    DAMAGED = "damaged"  # cut short, broken, or of a kind that cannot be shown
    TOO_LARGE = "too_large"  # in pixels; TorchServe itself refuses too many bytes
    TOO_MANY_SCANS = "too_many_scans"  # a JPEG that is drawn over and over
    TOO_MANY = "too_many_pictures"  # for one request
    SEVERAL_FIELDS = "several_fields"  # more than one image, where one is explained
    WEB_FORM = "web_form"  # curl --data-binary without a Content-Type
    JSON = "json"  # that is malformed, or asks in a form that is not known
    OPTION = "option"  # a wish for the answer's form that is not understood
    NOT_OFFERED = "not_offered"  # an explanation, without EXPLAIN=1 or captum


class BadRequest(ValueError):
    """What came, and what to send: as a sentence each, and together as the exception's text."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self, message: str, hint: str, reason: Reason = Reason.DAMAGED) -> None:
        super().__init__(f"{message}; {hint}")
        self.message, self.hint, self.reason = message, hint, reason

    def of(self, which: str) -> Self:
        """Return the same refusal, of one image among several."""
        return type(self)(f"{which}: {self.message}", self.hint, self.reason)


class BadImage(BadRequest):
    """A request whose image cannot be read."""


class NotOffered(BadRequest):
    """What this server could answer, but is not equipped for."""

    status = HTTPStatus.NOT_IMPLEMENTED

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint, Reason.NOT_OFFERED)


def error_object(status: HTTPStatus, message: str, hint: str) -> dict[str, Any]:
    """Return an error as every server here has it in JSON."""
    return {"error": {"code": int(status), "message": message, "hint": hint}}


def error_object_in_v2(message: str, hint: str) -> dict[str, Any]:
    """Return an error in the form of the V2 protocol, whose clients print the text."""
    return {"error": f"{message}; {hint}"}


def error(status: HTTPStatus, message: str, hint: str) -> str:
    """Return an error as a body; ASCII, whatever came."""
    return json.dumps(error_object(status, message, hint)) + "\n"


def error_in_v2(message: str, hint: str) -> str:
    """Return an error of the V2 protocol as a body."""
    return json.dumps(error_object_in_v2(message, hint)) + "\n"
