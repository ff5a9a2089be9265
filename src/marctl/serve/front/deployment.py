"""Another version in the place of the one that answers: started beside it, proven, and only then asked."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from marctl.errors import UserError
from marctl.serve.front.control import Asked, Say
from marctl.serve.front.nginx import DRAIN
from marctl.serve.front.slots import Place, Places
from marctl.serve.served_copies import Terms, unproven
from marctl.serve.torchserve.instance import Running, Served
from marctl.serve.torchserve.readiness import NotReady, fault_of, prove

WARM = 5.0  # seconds of golden images before a client's: Java compiles what it meets often
EVERY = 1.0  # seconds between two looks at a version that has just begun to answer


class Deployments:
    """One at a time, for as long as nobody stops them.

    `start` starts what a place has taken and returns when it is ready; `turn` is held while places change.
    `hold` is in seconds: so long the version before stands by after the change. With a public key, only what
    was signed with it is deployed.
    """

    def __init__(
        self,
        places: Places,
        start: Callable[[Place], Running],
        turn: threading.Lock,
        hold: float,
        public_key: Path | None = None,
    ) -> None:
        self._places, self._start, self._turn, self._hold = places, start, turn, hold
        self._public_key = public_key
        self._busy = threading.Lock()
        self._stopping = threading.Event()

    def deploy(self, asked: Asked, say: Say) -> None:
        """Serve other archives instead. Raises UserError, and all is as it was."""
        with self._alone():
            place, before = self._places.free, self._places.answering.served
            began = time.monotonic()
            place.take(asked.archives, Terms(self._public_key, asked.sealed, asked.public_key))
            _check_names(place.served, before)
            new, old = _named(place.served), _named(before)
            try:
                self._serve(place, new, say)
            except Exception as error:
                self._back_from(place)
                raise UserError(
                    f"{new} did not prove itself, {old} goes on answering. What was wrong: {error}"
                ) from error
            # Whatever was asked of it before the change is answered, or given up, by now.
            self._places.free.instance.stop()
            say(f"{new} has taken the place of {old}, after {time.monotonic() - began:.0f} s")

    def stop(self) -> None:
        """End a deployment that is under way, and let no other one begin."""
        self._stopping.set()
        while not self._busy.acquire(timeout=EVERY / 5):
            self._places.free.instance.stop()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UserError("another version is being deployed; wait for its end")
        try:
            yield
        finally:
            self._busy.release()

    def _serve(self, place: Place, name: str, say: Say) -> None:
        state = self._start(place)
        say(f"{name} is ready on {state.inference}, beside the version that answers")
        count = prove(state, WARM, self._go_on)
        say(unproven(state.served) or f"{count:,} golden images were answered rightly")
        with self._turn:
            self._places.exchange()
        say(f"{name} answers; the version before stands by for {self._hold:.0f} s")
        end = time.monotonic() + self._hold
        while time.monotonic() < end:
            self._go_on()
            if (fault := fault_of(state)) is not None:
                raise NotReady(fault)
            self._stopping.wait(EVERY)

    def _back_from(self, place: Place) -> None:
        """Let the version before answer again, where it does not, and end this one."""
        if self._places.answering is place:
            with self._turn:
                self._places.exchange()
            if place.instance.running() is not None:
                self._stopping.wait(DRAIN)
        place.instance.stop()

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise NotReady("all is being stopped")


def _check_names(served: list[Served], before: list[Served]) -> None:
    """Raise UserError where a model that is asked for would be there no more."""
    gone = {one.model for one in before} - {one.model for one in served}
    if gone:
        raise UserError(f"{', '.join(sorted(gone))} would be served no more; deploy all models together, "
                          "or stop the server first")  # fmt: skip


def _named(served: list[Served]) -> str:
    return ", ".join(f"{one.model} {one.version}" for one in served)
