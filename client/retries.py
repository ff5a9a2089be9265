"""When to ask again, and when to give up."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

# Too many requests; the server is away, or too busy; and TorchServe's word for a worker that died meanwhile.
# A prediction changes nothing, so asking again is safe.
AGAIN = frozenset({429, 502, 503, 504, 507})
RETRY_AFTER = "Retry-After"


@dataclass(frozen=True)
class Retries:
    """How often, and how long between: twice as long each time, and never longer than `longest`."""

    tries: int = 5
    first: float = 0.25    # seconds before the second try
    longest: float = 10.0  # seconds before any, whatever the server asks for

    def pause(self, tried: int, outcome: httpx.Response | httpx.RequestError) -> float | None:
        """Return the seconds to wait after so many tries; None where another one is of no use."""
        if tried >= self.tries or not _is_worth_another(outcome):
            return None
        backoff = min(self.first * 2 ** (tried - 1), self.longest)
        asked = _retry_after(outcome) if isinstance(outcome, httpx.Response) else 0.0
        # By chance: clients that were sent away together do not come back together.
        chance = random.uniform(backoff / 2, backoff)  # noqa: S311 no secret
        return min(asked + chance, self.longest)


def _is_worth_another(outcome: httpx.Response | httpx.RequestError) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in AGAIN
    # A connection that is refused, or ends without an answer; no answer in time is another matter.
    return isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that a server asks for, by a number or by a date; 0 where it asks for nothing."""
    asked = response.headers.get(RETRY_AFTER, "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):  # no date, or one of no time zone, or of no year
        return 0.0
