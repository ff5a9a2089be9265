"""One request and its tries: what is sent, when it is sent again, and what is made of the last outcome."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import httpx

from client_errors import (
    BadPicture,
    BadSetting,
    ClientError,
    NoPrediction,
    NotAllowed,
    Refused,
    TooSlow,
    Unavailable,
    Unreachable,
)
from retries import AGAIN, Retries

Picture = bytes | str | os.PathLike[str]
Outcome = httpx.Response | httpx.RequestError
Answer = TypeVar("Answer")

NO_TOKEN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
# TorchServe's word for a token that is missing, wrong or expired; its status is 400.
BAD_KEY = "InvalidKeyException"
ADDRESS = "give one such as http://127.0.0.1:8080"
SHOWN = 200  # characters of an answer that nobody expected


class Attempts:
    """The tries of one request against one address."""

    def __init__(self, url: str, retries: Retries) -> None:
        self._url, self._retries = url, retries
        self._tried, self._began = 0, time.monotonic()

    def pause_after(self, outcome: Outcome) -> float | None:
        """Return the seconds to wait before the next try, None where this outcome is the last one."""
        self._tried += 1
        return self._retries.pause(self._tried, outcome)

    def answer(self, outcome: Outcome, read: Callable[[dict[str, Any]], Answer]) -> Answer:
        """Return what is read from the last outcome. Raises ClientError."""
        if isinstance(outcome, httpx.RequestError):
            raise self._unanswered(outcome)
        if not outcome.is_success:
            raise self._refused(outcome)
        try:
            return read(outcome.json())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise NoPrediction(
                f"{self._url} answers {outcome.status_code} and {_shown(outcome.text)}, which is no "
                "prediction in JSON; is it this project's server, with an archive of today?"
            ) from error

    def _unanswered(self, error: httpx.RequestError) -> ClientError:
        if isinstance(error, httpx.DecodingError):
            return NoPrediction(f"{self._url} answers what cannot be unpacked ({_words(error)}); "
                                "what is between here and the server?")  # fmt: skip
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return TooSlow(f"{self._url} took longer than the timeout ({_words(error)}); "
                           "give it more, or send a smaller picture")  # fmt: skip
        return Unreachable(f"nothing answers on {self._url}{self._effort} ({_words(error)}); "
                           "is the server up there? here it is started with: make serve")  # fmt: skip

    def _refused(self, response: httpx.Response) -> ClientError:
        status, (message, hint, kind) = response.status_code, _told(response)
        said = f"{self._url} answers {status}: {message}" + (f"; {hint}" if hint else "")
        if status in NO_TOKEN or kind == BAD_KEY:
            hint = hint or "give the client the token that `make token` prints"
            return NotAllowed(f"{self._url} answers {status}: {message}; {hint}", status, message, hint)
        if response.is_client_error and status not in AGAIN:
            return Refused(said, status, message, hint)
        if response.is_redirect or response.is_informational:
            return NoPrediction(f"{said}; give the address that answers itself")
        return Unavailable(f"{said}{self._effort}", status, message, hint)

    @property
    def _effort(self) -> str:
        if self._tried == 1:
            return ""
        return f", after {self._tried} tries in {time.monotonic() - self._began:.1f} s"


def check_settings(url: str, token: str | None) -> None:
    """Raise BadSetting for an address or a token that no request can be sent with."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadSetting(f"{url!r} is no address ({error}); {ADDRESS}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise BadSetting(f"{url!r} is no address of a server; {ADDRESS}")
    if token and not (token.isascii() and token.isprintable()):
        raise BadSetting("the token holds what no header may; give the one that `make token` prints")


def check_concurrency(concurrency: int) -> None:
    """Raise ValueError where no picture could ever be under way."""
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; 1 is the least")


def bytes_of(picture: Picture) -> bytes:
    """Return a picture's bytes, of a file where it is the name of one. Raises BadPicture."""
    if isinstance(picture, bytes):
        return picture
    try:
        file = Path(picture)
        if file.exists() and not file.is_file():  # a pipe or a device may have no end
            raise BadPicture(f"{os.fspath(picture)} is no file; name a picture")
        return file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        why = getattr(error, "strerror", None) or error
        raise BadPicture(f"cannot read {os.fspath(picture)}: {why}; name a picture") from error


def _told(response: httpx.Response) -> tuple[str, str, str]:
    """Return what an error says: a message, what to do if it says so, and TorchServe's kind of error."""
    try:
        told = response.json()
        inner = told.get("error", told)
        message, hint, kind = (str(inner.get(key) or "") for key in ("message", "hint", "type"))
    except (ValueError, AttributeError):  # no JSON, or no object
        message, hint, kind = response.text.strip()[:SHOWN], "", ""
    return message or response.reason_phrase or "no word why", hint, kind


def _shown(text: str) -> str:
    return json.dumps(text if len(text) <= SHOWN else f"{text[:SHOWN]}...", ensure_ascii=False)


def _words(error: httpx.RequestError) -> str:
    return str(error) or type(error).__name__
