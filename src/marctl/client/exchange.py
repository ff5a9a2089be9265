"""One request to a server, with its retries, and what is made of the last response or error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import httpx

from .connection import Proxy
from .errors import ClientError, NoPrediction, NotAllowed, Refused, TooSlow, Unavailable, Unreachable
from .retries import AGAIN, Kind, Retries, is_untrusted

Answer = TypeVar("Answer")

NO_TOKEN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
# TorchServe's word for a token that is missing, wrong or expired; its status is 400.
BAD_KEY = "InvalidKeyException"
SHOWN = 200  # characters of an answer that nobody expected


class Exchange(Generic[Kind]):
    """The tries of one request; `send` is tenacity's, called with what sends the request once."""

    def __init__(self, url: str, proxy: Proxy | None, retries: Retries, kind: type[Kind]) -> None:
        """Take the address as it is to be shown."""
        self.send: Kind = retries.by(kind)
        self._proxy = proxy
        self._place = f"{url} (through {proxy})" if proxy else url

    def answer(self, response: httpx.Response, read: Callable[[dict[str, Any]], Answer]) -> Answer:
        """Return what is read from the last response. Raises ClientError."""
        if not response.is_success:
            raise self._refused(response)
        try:
            return read(response.json())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise NoPrediction(
                f"{self._place} answers {response.status_code} and {_shown(response.text)}, which is no "
                "prediction in JSON; is it this project's server, with an archive of today?"
            ) from error

    def unanswered(self, error: Exception) -> ClientError:
        """Return what the last error comes to, whatever httpx raised."""
        place, words = self._place, str(error) or type(error).__name__
        if is_untrusted(error):
            return Unreachable(f"{place} has no certificate that is believed here ({words}); name its "
                               "authority's certificate in SSL_CERT_FILE")  # fmt: skip
        if not isinstance(error, httpx.RequestError):  # such as an InvalidURL, of a model's name
            return Unreachable(
                f"no request can be sent to {place} ({words}); correct the address or the model"
            )
        if isinstance(error, httpx.DecodingError):
            return NoPrediction(f"{place} answers what cannot be unpacked ({words}); "
                                "what is between here and the server?")  # fmt: skip
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return TooSlow(f"{place} took longer than the timeout ({words}); "
                           "give it more, or send a smaller image")  # fmt: skip
        if self._proxy:
            return Unreachable(f"nothing answers on {place}{self._effort} ({words}); "
                               f"is the proxy up? {self._proxy.without}")  # fmt: skip
        return Unreachable(f"nothing answers on {place}{self._effort} ({words}); "
                           "is the server up there? here it is started with: make serve")  # fmt: skip

    def _refused(self, response: httpx.Response) -> ClientError:
        status, (message, hint, kind) = response.status_code, _told(response)
        said = f"{self._place} answers {status}: {message}" + (f"; {hint}" if hint else "")
        if status in NO_TOKEN or kind == BAD_KEY:
            hint = hint or "give the client the token that `make token` prints"
            return NotAllowed(f"{self._place} answers {status}: {message}; {hint}", status, message, hint)
        if response.is_client_error and status not in AGAIN:
            return Refused(said, status, message, hint)
        if response.is_redirect or response.is_informational:
            return NoPrediction(f"{said}; give the address that answers itself")
        return Unavailable(f"{said}{self._effort}", status, message, hint)

    @property
    def _effort(self) -> str:
        tries, began = (self.send.statistics[key] for key in ("attempt_number", "start_time"))
        return f", after {tries} tries in {time.monotonic() - began:.1f} s" if tries > 1 else ""


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
