"""Keeps a TorchServe up behind its front door, from its first answer to its last."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from front_door import DRAIN, HEALTH_SOCKET, SWITCH, FrontDoor, Opening
from health import Health
from instance import STOP_GRACE, Instance, Running
from places import Place, Places, twin_of
from process_end import end, living
from readiness import fault_of
from say import say

EVERY = 1.0  # seconds between two looks at the server
# Seconds before another try to start a server that does not become ready; the last one counts on.
PAUSES = (1, 2, 5, 10, 30)
# The socket in it is reached by nginx's processes, which are nobody's; no other file in it is.
THROUGH = 0o711
CONTROL = "control"
FIRST = 1


@dataclass(frozen=True)
class Kept:
    """A keeper that runs: its process, its folder of sockets, and where its door is."""

    pid: int
    created: float  # the process's start, seconds since 1970
    scratch: str
    address: str

    @property
    def health(self) -> Path:
        """The Unix socket that answers /health."""
        return Path(self.scratch) / HEALTH_SOCKET

    @property
    def control(self) -> Path:
        """The folder of the Unix socket that takes requests for the keeper itself."""
        return Path(self.scratch) / CONTROL

    @property
    def twin_answers(self) -> bool:
        """Whether the second place is the one that answers."""
        return (Path(self.scratch) / SWITCH).exists()

    @property
    def process(self) -> psutil.Process | None:
        """The keeper's process, None where it has ended."""
        return living(self.pid, self.created)


def kept_in(folder: Path) -> Kept | None:
    """Return who keeps the server of this folder, or kept it last; None where nobody did."""
    try:
        return Kept(**json.loads(_file(folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def answering_in(instance: Instance) -> Instance:
    """Return the one that answers: this one, or another version beside it behind the same door."""
    state = kept_in(instance.folder)
    return twin_of(instance.folder) if state is not None and state.twin_answers else instance


@contextlib.contextmanager
def kept(instance: Instance, opening_in: Callable[[Path], Opening]) -> Iterator[tuple[Opening, FrontDoor]]:
    """Open the front door, and write down who keeps it; close it and forget that at the end."""
    scratch = Path(tempfile.mkdtemp(prefix="front-door-"))
    with contextlib.ExitStack() as at_the_end:
        at_the_end.callback(shutil.rmtree, scratch, ignore_errors=True)
        scratch.chmod(THROUGH)
        opening = opening_in(scratch)
        me = Kept(os.getpid(), psutil.Process().create_time(), str(scratch), opening.address)
        instance.folder.mkdir(parents=True, exist_ok=True)
        _file(instance.folder).write_text(json.dumps(asdict(me), indent=2) + "\n", encoding="utf-8")
        at_the_end.callback(_file(instance.folder).unlink, missing_ok=True)
        door = door_of(instance)
        at_the_end.callback(door.close)
        door.open(opening)
        yield opening, door


def end_keeper(instance: Instance) -> bool:
    """End who keeps an instance's server, and the servers with it; return whether there was a keeper."""
    state = kept_in(instance.folder)
    if state is None:
        return False
    if (process := state.process) is not None:
        process.terminate()
        end([process], DRAIN + STOP_GRACE + DRAIN)
    # What it would have put away itself, had nobody killed it.
    door_of(instance).close()
    twin_of(instance.folder).stop()
    shutil.rmtree(state.scratch, ignore_errors=True)
    _file(instance.folder).unlink(missing_ok=True)
    return process is not None


def door_of(instance: Instance) -> FrontDoor:
    """Return the front door of an instance."""
    return FrontDoor(instance.folder / "door")


class Keeper:
    """Looks every second at the server that answers, and starts it again whenever it has ended.

    `start` starts what a place has taken and returns when it is ready. `turn` is held while a server is
    started again, so that no other one takes its place meanwhile.
    """

    def __init__(self, places: Places, start: Callable[[Place], Running], seen: Health) -> None:
        self._places, self._start, self._seen = places, start, seen
        self._tries, self._next_try = 0, 0.0
        self.turn = threading.Lock()

    def keep(self) -> NoReturn:
        """Start the server and keep it up. Raises what `start` does, the first time."""
        self._start(self._places.answering)
        while True:
            if os.getpid() == FIRST:
                _ask_for_orphans()
            self._look()
            time.sleep(EVERY)

    def _look(self) -> None:
        with self.turn:
            place = self._places.answering
            state = place.instance.running() or self._again(place)
        if state is None:
            return
        fault = fault_of(state)
        with self.turn:
            if self._places.answering is place:  # else another version has taken its place
                self._seen.saw(fault)

    def _again(self, place: Place) -> Running | None:
        """Start a server again; None where it does not become ready, or the next try is not due."""
        self._seen.saw("it ended by itself and is started again", live=False)
        if time.monotonic() < self._next_try:
            return None
        try:
            state = self._start(place)
        except Exception as error:  # noqa: BLE001 whatever it is, the next try may find it mended
            say(f"error: {error}")
            place.instance.stop()
            self._next_try = time.monotonic() + PAUSES[min(self._tries, len(PAUSES) - 1)]
            self._tries += 1
            return None
        self._tries, self._next_try = 0, 0.0
        return state


def _ask_for_orphans() -> None:
    """Take note of what has ended: the first process of a container inherits all that lose their parent."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _file(folder: Path) -> Path:
    return folder / "keeper.json"
