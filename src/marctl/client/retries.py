"""When to retry a request, how long to wait before that, and when to give up."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

# Too many requests; the server is down or too busy; and TorchServe's status for a worker that died meanwhile.
# A prediction changes nothing, so a retry is safe.
AGAIN = frozenset({429, 502, 503, 504, 507})
RETRY_AFTER = "Retry-After"

Kind = TypeVar("Kind", Retrying, AsyncRetrying)


@dataclass(frozen=True)
class Retries:
    """How often to send a request, and how long to wait between attempts.

    The wait is the server's Retry-After plus a random time, so that clients refused together do not come back
    together: up to `first` before the second attempt, up to twice as much before each further one. Neither
    the random time nor the whole wait exceeds `longest`.
    """

    tries: int = 5
    first: float = 0.5  # seconds
    longest: float = 10.0  # seconds, whatever the server asks for
    deadline: float = 60.0  # seconds after the first attempt; no attempt starts later

    def by(self, kind: type[Kind]) -> Kind:
        """Return tenacity's object for one request, with or without asyncio: call it with what to retry.

        It returns the last response, or raises the last error.
        """
        return kind(
            retry=retry_if_result(_is_retryable) | retry_if_exception(_is_retryable),
            stop=stop_after_attempt(self.tries) | stop_before_delay(self.deadline),
            wait=self.wait,
            retry_error_callback=_last,
        )

    def wait(self, state: RetryCallState) -> float:
        """Return the seconds to wait after the outcome in `state`."""
        more = wait_random_exponential(self.first, self.longest)(state)
        failed = state.outcome is None or state.outcome.failed
        return min((0.0 if failed else _retry_after(_last(state))) + more, self.longest)


def is_untrusted(error: BaseException) -> bool:
    """Return whether an error was caused by an untrusted certificate."""
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__  # httpcore sets no cause


def _last(state: RetryCallState) -> Any:
    return None if state.outcome is None else state.outcome.result()


def _is_retryable(outcome: Any) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in AGAIN
    # The connection was refused, or closed without an answer. A timeout is different: a retry would only
    # repeat the work.
    retryable = httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout
    return isinstance(outcome, retryable) and not is_untrusted(outcome)


def _retry_after(response: httpx.Response) -> float:
    """Return a Retry-After in seconds, from a number or a date; 0 without one."""
    value = response.headers.get(RETRY_AFTER, "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):  # not a date, no time zone, or a year out of range
        return 0.0
