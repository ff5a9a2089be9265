"""Keeps a TorchServe up behind its reverse proxy, from its first answer to its last."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from marctl.output import say
from marctl.serve import state_file
from marctl.serve.front.health import Health, ask
from marctl.serve.front.nginx import DRAIN, HEALTH_SOCKET, SWITCH, Opening, Proxy
from marctl.serve.front.slots import Place, Places, twin_of
from marctl.serve.front.supervisor_lock import Supervision
from marctl.serve.processes import ENDED, NotEnded, Process, processes
from marctl.serve.torchserve.instance import STOP_GRACE, Instance, Running, own, remove
from marctl.serve.torchserve.readiness import fault_of

EVERY = 1.0  # seconds between two looks at the server
# Seconds before another try to start a server that does not become ready; the last one counts on.
PAUSES = (1, 2, 5, 10, 30)
# Looks in a row, and seconds of each, in which TorchServe says nothing at all: it is then started again.
SILENT, ANSWER = 3, 10.0
PING = "/ping"
# Seconds that it then gets to end by itself.
SILENT_GRACE = 3.0
# Seconds until a supervisor has let its clients have their answers, and ended all that it started.
PATIENCE = DRAIN + STOP_GRACE + DRAIN
SCRATCH = "front-door-"
# The socket in it is reached by nginx's processes, which are nobody's; no other file in it is.
THROUGH = 0o711
CONTROL = "control"
FIRST = 1


@dataclass(frozen=True)
class Kept:
    """A supervisor that runs: its process, its folder of sockets, and where its door is."""

    pid: int
    scratch: str
    address: str

    @property
    def health(self) -> Path:
        """The Unix socket that answers /health."""
        return Path(self.scratch) / HEALTH_SOCKET

    @property
    def control(self) -> Path:
        """The folder of the Unix socket that takes requests for the supervisor itself."""
        return Path(self.scratch) / CONTROL

    @property
    def twin_answers(self) -> bool:
        """Whether the second place is the one that answers."""
        return (Path(self.scratch) / SWITCH).exists()


def kept_in(folder: Path) -> Kept | None:
    """Return who keeps the server of this folder, or kept it last; None where that is not known."""
    state = state_file.read(_file(folder)) or {}
    known = {name: state[name] for name in ("pid", "scratch", "address") if name in state}
    try:
        found = Kept(**known)
    except TypeError:
        return None
    is_sane = isinstance(found.pid, int) and Path(str(found.scratch)).name.startswith(SCRATCH)
    return found if is_sane else None


def answering_in(instance: Instance) -> Instance:
    """Return the one that answers: this one, or another version beside it behind the same door."""
    state = kept_in(instance.folder)
    return twin_of(instance.folder) if state is not None and state.twin_answers else instance


@contextlib.contextmanager
def kept(instance: Instance, opening_in: Callable[[Path], Opening]) -> Iterator[tuple[Opening, Proxy, Kept]]:
    """Open the reverse proxy, and write down who keeps it; close it and forget that at the end."""
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
    with contextlib.ExitStack() as at_the_end:
        at_the_end.callback(shutil.rmtree, scratch, ignore_errors=True)
        scratch.chmod(THROUGH)
        opening = opening_in(scratch)
        own(scratch, instance.folder)
        me = Kept(os.getpid(), str(scratch), opening.address)
        write_down(instance, me)
        at_the_end.callback(_file(instance.folder).unlink, missing_ok=True)
        door = door_of(instance)
        at_the_end.callback(door.close)
        door.open(opening)
        yield opening, door, me


def write_down(instance: Instance, me: Kept) -> None:
    """Write down who keeps an instance's server. Raises OSError."""
    state_file.write(_file(instance.folder), asdict(me))


def stop_all(instance: Instance) -> bool:
    """End the supervisor of a folder and all that it started; return whether anything ran.

    Raises NotEnded where something still runs.
    """
    supervision = Supervision(instance.folder)
    found = supervision.end(PATIENCE)
    if not instance.folder.exists():  # deleted, or never there
        return end_what_is_left(instance) or found
    if not supervision.take():
        if found:  # another one has been started meanwhile
            return True
        raise NotEnded(f"another command starts or stops the server of {instance.folder}; try again")
    try:
        return end_what_is_left(instance) or found
    finally:
        supervision.leave()


def end_what_is_left(instance: Instance) -> bool:
    """End what a supervisor that was killed left running, and forget it; return whether anything ran.

    Raises NotEnded where something still runs; nothing is forgotten then.
    """
    state = kept_in(instance.folder)
    found, faults = False, []
    for stop in (door_of(instance).close, twin_of(instance.folder).stop, instance.stop):
        try:
            found |= stop()
        except NotEnded as fault:  # the others may end all the same
            faults.append(str(fault))
    if faults:
        raise NotEnded("; ".join(faults))
    if state is not None:
        remove(state.scratch, instance.folder)
    _file(instance.folder).unlink(missing_ok=True)
    return found


def left_in(instance: Instance) -> list[Process]:
    """Return nginx's and TorchServe's processes of a folder, written down or not."""
    servers = [one for each in (instance, twin_of(instance.folder)) for one in each.family()]
    return [*door_of(instance).family(), *servers]


def door_of(instance: Instance) -> Proxy:
    """Return the reverse proxy of an instance."""
    return Proxy(instance.folder / "door")


class Supervisor:
    """Looks every second at the server that answers, and starts it again whenever it has ended.

    `start` starts what a place has taken and returns when it is ready. `turn` is held while a server is
    started again, so that no other one takes its place meanwhile.
    """

    def __init__(self, places: Places, start: Callable[[Place], Running], seen: Health) -> None:
        self._places, self._start, self._seen = places, start, seen
        self._tries, self._next_try = 0, 0.0
        self._silent = 0
        self.turn = threading.Lock()

    def keep(self, hold_on: Callable[[], None]) -> NoReturn:
        """Start the server and keep it up. Raises what `start` does, the first time.

        `hold_on` is called before every look.
        """
        self._start(self._places.answering)
        orphans: set[int] = set()
        while True:
            try:
                hold_on()
                if os.getpid() == FIRST:
                    orphans = _asked_for(orphans)
                self._look()
            except Exception as error:  # noqa: BLE001 whatever it is, the next look may find it mended
                say(traceback.format_exc())
                self._seen.saw(f"it cannot be looked at: {error}")
            time.sleep(EVERY)

    def _look(self) -> None:
        with self.turn:
            place = self._places.answering
            state = place.instance.running() or self._again(place)
        if state is None:
            return
        fault = self._silence(place, state) or fault_of(state)
        with self.turn:
            if self._places.answering is place:  # else another version has taken its place
                self._seen.saw(fault)

    def _silence(self, place: Place, state: Running) -> str | None:
        """Say that TorchServe lives and answers nothing, None where it does; end it where that goes on."""
        try:
            ask(state.inference, PING, ANSWER)
        except OSError as error:
            self._silent += 1
            fault = f"TorchServe gives no answer: {error}"
        else:
            self._silent = 0
            return None
        if self._silent >= SILENT:
            self._silent = 0
            say(f"{fault}; ending it")
            with self.turn:
                if self._places.answering is place:
                    place.instance.stop(SILENT_GRACE)
        return fault

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


def _asked_for(before: set[int]) -> set[int]:
    """Take note of what has ended: the first process of a container inherits all that lose their parent.

    Return those that have ended just now. They are asked for at the next look: what this process started
    itself has been asked for by then, and nobody is told twice.
    """
    now = {one.pid for one in processes() if one.parent == FIRST and one.state in ENDED}
    for pid in before & now:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return now


def _file(folder: Path) -> Path:
    return folder / "keeper.json"
