"""When a request is sent again, how long is waited before, and when to give up."""

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

# Too many requests; the server is away, or too busy; and TorchServe's word for a worker that died meanwhile.
# A prediction changes nothing, so asking again is safe.
AGAIN = frozenset({429, 502, 503, 504, 507})
RETRY_AFTER = "Retry-After"

Kind = TypeVar("Kind", Retrying, AsyncRetrying)


@dataclass(frozen=True)
class Retries:
    """How often a request is sent, and how long is waited before it is sent again.

    The wait is the server's Retry-After and a random time more, so that clients which were sent away together
    do not come back together: up to `first` before the second try, up to twice as much before each further
    one. Neither the random time nor the whole wait is longer than `longest`.
    """

    tries: int = 5
    first: float = 0.5  # seconds
    longest: float = 10.0  # seconds, whatever the server asks for
    deadline: float = 60.0  # seconds after the first try, from which on no other one begins

    def by(self, kind: type[Kind]) -> Kind:
        """Return what sends one request, with or without asyncio: called with a function, it retries that.

        It returns the last response, or raises the last error.
        """
        return kind(
            retry=retry_if_result(_may_pass) | retry_if_exception(_may_pass),
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
    """Return whether an error comes of a certificate that does not prove who answers."""
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__  # httpcore names no cause


def _last(state: RetryCallState) -> Any:
    return None if state.outcome is None else state.outcome.result()


def _may_pass(outcome: Any) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in AGAIN
    # A connection that is refused, or ends without an answer. No answer in time is another matter: the same
    # request again would be more of the same work.
    passing = httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout
    return isinstance(outcome, passing) and not is_untrusted(outcome)


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that a server asks for, by a number or by a date; 0 where it asks for nothing."""
    asked = response.headers.get(RETRY_AFTER, "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):  # no date, or one of no time zone, or of no year
        return 0.0
