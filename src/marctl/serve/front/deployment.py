"""Deployments: a new version starts next to the old one, is checked, and only then gets traffic."""

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

WARM = 5.0  # seconds of golden images before a client's: Java compiles the code that runs often
EVERY = 1.0  # seconds between two checks of a version that has just begun to serve


class Deployments:
    """Runs one deployment at a time, until stopped.

    `start` starts the archives in a slot and returns when they are ready; `turn` is held while slots are
    exchanged. After that the previous version stands by for `hold` seconds. With a public key, only archives
    signed with it are deployed.
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
        """Serve other archives instead. Raises UserError, and then the old ones are still served."""
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
                    f"{new} failed its checks, {old} keeps serving; the cause: {error}"
                ) from error
            # Requests from before the exchange have been answered, or have timed out, by now.
            self._places.free.instance.stop()
            say(f"{new} has replaced {old}, after {time.monotonic() - began:.0f} s")

    def stop(self) -> None:
        """End a deployment in progress, and prevent new ones."""
        self._stopping.set()
        while not self._busy.acquire(timeout=EVERY / 5):
            self._places.free.instance.stop()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UserError("another deployment is in progress; wait until it has finished")
        try:
            yield
        finally:
            self._busy.release()

    def _serve(self, place: Place, name: str, say: Say) -> None:
        state = self._start(place)
        say(f"{name} is ready on {state.inference}, not serving yet")
        count = prove(state, WARM, self._check_stop)
        say(unproven(state.served) or f"{count:,} golden images were answered correctly")
        with self._turn:
            self._places.exchange()
        say(f"{name} is serving; the previous version stands by for {self._hold:.0f} s")
        end = time.monotonic() + self._hold
        while time.monotonic() < end:
            self._check_stop()
            if (fault := fault_of(state)) is not None:
                raise NotReady(fault)
            self._stopping.wait(EVERY)

    def _back_from(self, place: Place) -> None:
        """Switch back to the previous version, if it is not serving, and end this one."""
        if self._places.answering is place:
            with self._turn:
                self._places.exchange()
            if place.instance.running() is not None:
                self._stopping.wait(DRAIN)
        place.instance.stop()

    def _check_stop(self) -> None:
        if self._stopping.is_set():
            raise NotReady("the server is being stopped")


def _check_names(served: list[Served], before: list[Served]) -> None:
    """Raise UserError if a model that is served now would be missing."""
    gone = {one.model for one in before} - {one.model for one in served}
    if gone:
        raise UserError(f"{', '.join(sorted(gone))} would no longer be served; deploy all models together, "
                          "or stop the server first")  # fmt: skip


def _named(served: list[Served]) -> str:
    return ", ".join(f"{one.model} {one.version}" for one in served)
