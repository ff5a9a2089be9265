"""Checks every second whether the proxy answers, and restarts it if it does not."""

from __future__ import annotations

import threading
import time
import traceback

from marctl.output import say
from marctl.serve.front.health import Health, ask
from marctl.serve.front.nginx import Opening, Proxy
from marctl.serve.status_pages import LIVE

EVERY = 1.0  # seconds between two checks
SOONER = 0.1  # seconds between two checks of only the master process, which cost next to nothing
# Failed checks, minus successful ones, after which a proxy that is still alive is restarted.
PATIENCE = 3
# Seconds before the next attempt to start it after a failure; the last value repeats.
PAUSES = (1, 2, 5, 10, 30)


class ProxyWatch:
    """Keeps one proxy running, from its own thread, until `stop` is called."""

    def __init__(self, door: Proxy, opening: Opening, seen: Health) -> None:
        self._door, self._opening, self._seen = door, opening, seen
        self._silent = 0
        self._tries, self._next_try = 0, 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Start checking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop checking: from here on the proxy may end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while self._wait():
            try:
                self._look()
            except Exception:  # noqa: BLE001 whatever it is, the next check may succeed
                say(traceback.format_exc())

    def _wait(self) -> bool:
        """Wait until the next check is due, or the master has ended; return False after `stop`."""
        due = time.monotonic() + EVERY
        while not (stopping := self._stopping.wait(SOONER)) and time.monotonic() < due:
            if self._door.master is None:
                break
        return not stopping

    def _look(self) -> None:
        fault = self._fault()
        if fault is None:
            self._silent = max(0, self._silent - 1)
            self._tries, self._next_try = 0, 0.0
            self._seen.proxy_fault = None
            return
        self._silent += 1
        self._seen.proxy_fault = f"the proxy does not answer: {fault}"
        if self._door.master is None or self._silent >= PATIENCE:
            self._again(fault)

    def _fault(self) -> str | None:
        """Return why clients may get no answer; None if they do get one."""
        if self._door.master is None:
            return "its master process has ended"
        if stopped := self._door.stopped:
            return f"stopped by a signal: {', '.join(map(str, stopped))}"
        try:
            ask(self._opening.address, LIVE)  # any status will do: this checks the proxy, not TorchServe
        except OSError as error:
            return str(error) or type(error).__name__
        return None

    def _again(self, fault: str) -> None:
        if time.monotonic() < self._next_try:
            return
        say(f"the proxy does not answer ({fault}); restarting it")
        try:
            self._door.open_again(self._opening)
        except Exception as error:  # noqa: BLE001 whatever it is, the next attempt may succeed
            say(f"error: {error}")
            self._next_try = time.monotonic() + PAUSES[min(self._tries, len(PAUSES) - 1)]
            self._tries += 1
        self._silent = 0
