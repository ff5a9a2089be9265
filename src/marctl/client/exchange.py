"""One request with its retries, and the result of the last response or error."""

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
# TorchServe's error type for a token that is missing, wrong or expired; the status is 400.
BAD_KEY = "InvalidKeyException"
SHOWN = 200  # characters of an unexpected response


class Exchange(Generic[Kind]):
    """The attempts of one request; `send`, tenacity's, takes the function that sends it once."""

    def __init__(self, url: str, proxy: Proxy | None, retries: Retries, kind: type[Kind]) -> None:
        """Take the address as messages show it."""
        self.send: Kind = retries.by(kind)
        self._proxy = proxy
        self._place = f"{url} (through {proxy})" if proxy else url

    def answer(self, response: httpx.Response, read: Callable[[dict[str, Any]], Answer]) -> Answer:
        """Read the last response. Raises ClientError."""
        if not response.is_success:
            raise self._refused(response)
        try:
            return read(response.json())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise NoPrediction(
                f"{self._place} answers {response.status_code} with {_shown(response.text)}, which is not a "
                "prediction in JSON; is it this project's server, with a current archive?"
            ) from error

    def unanswered(self, error: Exception) -> ClientError:
        """Turn the last error, whatever httpx raised, into a ClientError."""
        place, words = self._place, str(error) or type(error).__name__
        if is_untrusted(error):
            return Unreachable(f"{place} has a certificate that is not trusted here ({words}); name its "
                               "authority's certificate in SSL_CERT_FILE")  # fmt: skip
        if not isinstance(error, httpx.RequestError):  # such as InvalidURL, from a model's name
            return Unreachable(
                f"no request can be sent to {place} ({words}); correct the address or the model"
            )
        if isinstance(error, httpx.DecodingError):
            return NoPrediction(f"{place} sent a response that cannot be decoded ({words}); "
                                "check what is between here and the server")  # fmt: skip
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return TooSlow(f"{place} took longer than the timeout ({words}); "
                           "raise it, or send a smaller image")  # fmt: skip
        if self._proxy:
            return Unreachable(f"nothing answers on {place}{self._attempts} ({words}); "
                               f"is the proxy running? {self._proxy.without}")  # fmt: skip
        return Unreachable(f"nothing answers on {place}{self._attempts} ({words}); "
                           "is the server running? start it with: make serve")  # fmt: skip

    def _refused(self, response: httpx.Response) -> ClientError:
        status, (message, hint, kind) = response.status_code, _error_of(response)
        sentence = f"{self._place} answers {status}: {message}" + (f"; {hint}" if hint else "")
        if status in NO_TOKEN or kind == BAD_KEY:
            hint = hint or "give the client the token that `make token` prints"
            return NotAllowed(f"{self._place} answers {status}: {message}; {hint}", status, message, hint)
        if response.is_client_error and status not in AGAIN:
            return Refused(sentence, status, message, hint)
        if response.is_redirect or response.is_informational:
            return NoPrediction(f"{sentence}; give the server's own address")
        return Unavailable(f"{sentence}{self._attempts}", status, message, hint)

    @property
    def _attempts(self) -> str:
        attempts, began = (self.send.statistics[key] for key in ("attempt_number", "start_time"))
        return f", after {attempts} attempts in {time.monotonic() - began:.1f} s" if attempts > 1 else ""


def _error_of(response: httpx.Response) -> tuple[str, str, str]:
    """Return an error's message, its hint, empty if there is none, and TorchServe's error type."""
    try:
        body = response.json()
        inner = body.get("error", body)
        message, hint, kind = (str(inner.get(key) or "") for key in ("message", "hint", "type"))
    except (ValueError, AttributeError):  # not JSON, or not an object
        message, hint, kind = response.text.strip()[:SHOWN], "", ""
    return message or response.reason_phrase or "no reason given", hint, kind


def _shown(text: str) -> str:
    return json.dumps(text if len(text) <= SHOWN else f"{text[:SHOWN]}...", ensure_ascii=False)
