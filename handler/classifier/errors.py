"""Requests that cannot be answered: what is wrong with them, and what to send instead."""

from __future__ import annotations

import json
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Self

JSON = "application/json"


class Reason(StrEnum):
    """Why a request was refused, in one word for metrics: messages hold sizes, so they cannot be counted."""

    EMPTY = "empty"  # a request without content
    UNKNOWN_FORMAT = "unknown_format"  # bytes that no decoder recognises
    DAMAGED = "damaged"  # truncated, corrupt or of an unsupported kind
    TOO_LARGE = "too_large"  # in pixels; TorchServe itself limits the bytes
    TOO_MANY_SCANS = "too_many_scans"  # in one JPEG
    TOO_MANY = "too_many_pictures"  # in one request
    SEVERAL_FIELDS = "several_fields"  # several images where only one can be explained
    WEB_FORM = "web_form"  # curl --data-binary without a Content-Type
    JSON = "json"  # that is malformed, or not in a known form
    OPTION = "option"  # an invalid option for the answer's form
    NOT_OFFERED = "not_offered"  # an explanation without EXPLAIN=1 or captum


class BadRequest(ValueError):
    """A message with what came, and a hint with what to send; the exception's text joins the two."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self, message: str, hint: str, reason: Reason = Reason.DAMAGED) -> None:
        super().__init__(f"{message}; {hint}")
        self.message, self.hint, self.reason = message, hint, reason

    def of(self, which: str) -> Self:
        """Return the same error, with the name of one image among several."""
        return type(self)(f"{which}: {self.message}", self.hint, self.reason)


class BadImage(BadRequest):
    """A request whose image cannot be read."""


class NotOffered(BadRequest):
    """A request for something that this server is not set up to answer."""

    status = HTTPStatus.NOT_IMPLEMENTED

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint, Reason.NOT_OFFERED)


def error_object(status: HTTPStatus, message: str, hint: str) -> dict[str, Any]:
    """Return an error in the JSON form that every server here uses."""
    return {"error": {"code": int(status), "message": message, "hint": hint}}


def error_object_in_v2(message: str, hint: str) -> dict[str, Any]:
    """Return an error in the form of the V2 protocol, whose clients print the text."""
    return {"error": f"{message}; {hint}"}


def error(status: HTTPStatus, message: str, hint: str) -> str:
    """Return an error as a response body, always in ASCII."""
    return json.dumps(error_object(status, message, hint)) + "\n"


def error_in_v2(message: str, hint: str) -> str:
    """Return an error of the V2 protocol as a response body."""
    return json.dumps(error_object_in_v2(message, hint)) + "\n"
