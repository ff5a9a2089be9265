"""A request that cannot be answered as it came: what is wrong with it, and what to send instead."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Self

from reason import Reason

JSON = "application/json"


class Refusal(ValueError):
    """What came, and what to send: as a sentence each, and together as the exception's text."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self, message: str, hint: str, reason: Reason = Reason.DAMAGED) -> None:
        super().__init__(f"{message}; {hint}")
        self.message, self.hint, self.reason = message, hint, reason

    def of(self, which: str) -> Self:
        """Return the same refusal, of one picture among several."""
        return type(self)(f"{which}: {self.message}", self.hint, self.reason)


class BadImage(Refusal):
    """A request whose picture cannot be read."""


class NotOffered(Refusal):
    """What this server could answer, but is not equipped for."""

    status = HTTPStatus.NOT_IMPLEMENTED

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint, Reason.NOT_OFFERED)


def error(status: HTTPStatus, message: str, hint: str) -> str:
    """Return an error as every server here tells it, in JSON; ASCII, whatever came."""
    return json.dumps({"error": {"code": int(status), "message": message, "hint": hint}}) + "\n"


def error_in_v2(message: str, hint: str) -> str:
    """Return an error in the form of the V2 protocol, whose clients print the text."""
    return json.dumps({"error": f"{message}; {hint}"}) + "\n"
