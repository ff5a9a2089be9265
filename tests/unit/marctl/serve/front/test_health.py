"""What is reported about a server's health."""

import time

from marctl.serve.front.health import FRESH, Health
from marctl.serve.status_pages import READY


def test_ready_is_not_said_of_what_nobody_looked_at(monkeypatch):
    """The result of a health check is valid for seconds only."""
    seen = Health()
    seen.saw(None)
    assert seen.answer(READY)[0] == 200
    later = time.monotonic() + FRESH + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert seen.answer(READY)[0] == 503
