"""The supervisor: keeps a TorchServe running behind its reverse proxy, and records who does."""

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

EVERY = 1.0  # seconds between two checks of the server
# Seconds before the next attempt to start a server that does not become ready; the last value repeats.
PAUSES = (1, 2, 5, 10, 30)
# Checks in a row, and seconds for each, without any answer, after which TorchServe is restarted.
SILENT, ANSWER = 3, 10.0
PING = "/ping"
# Seconds for it to end by itself then.
SILENT_GRACE = 3.0
# Seconds for a supervisor to answer its clients' requests and end everything it started.
PATIENCE = DRAIN + STOP_GRACE + DRAIN
SCRATCH = "front-door-"
# nginx's workers, which run as nobody, can reach the socket in it; they cannot list it.
THROUGH = 0o711
CONTROL = "control"
FIRST = 1


@dataclass(frozen=True)
class Kept:
    """A running supervisor: its PID, its folder of sockets, and its proxy's address."""

    pid: int
    scratch: str
    address: str

    @property
    def health(self) -> Path:
        """The Unix socket that answers /health."""
        return Path(self.scratch) / HEALTH_SOCKET

    @property
    def control(self) -> Path:
        """The folder of the Unix socket that takes commands for the supervisor."""
        return Path(self.scratch) / CONTROL

    @property
    def twin_answers(self) -> bool:
        """Whether the second slot is active."""
        return (Path(self.scratch) / SWITCH).exists()


def kept_in(folder: Path) -> Kept | None:
    """Return the current or last supervisor of this folder; None if it is unknown."""
    state = state_file.read(_file(folder)) or {}
    known = {name: state[name] for name in ("pid", "scratch", "address") if name in state}
    try:
        found = Kept(**known)
    except TypeError:
        return None
    is_sane = isinstance(found.pid, int) and Path(str(found.scratch)).name.startswith(SCRATCH)
    return found if is_sane else None


def answering_in(instance: Instance) -> Instance:
    """Return the active TorchServe: this one, or the one in the second slot."""
    state = kept_in(instance.folder)
    return twin_of(instance.folder) if state is not None and state.twin_answers else instance


@contextlib.contextmanager
def kept(instance: Instance, opening_in: Callable[[Path], Opening]) -> Iterator[tuple[Opening, Proxy, Kept]]:
    """Start the reverse proxy and record this supervisor; undo both at the end."""
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH))
    with contextlib.ExitStack() as at_the_end:
        at_the_end.callback(shutil.rmtree, scratch, ignore_errors=True)
        scratch.chmod(THROUGH)
        opening = opening_in(scratch)
        own(scratch, instance.folder)
        me = Kept(os.getpid(), str(scratch), opening.address)
        write_down(instance, me)
        at_the_end.callback(_file(instance.folder).unlink, missing_ok=True)
        proxy = door_of(instance)
        at_the_end.callback(proxy.close)
        proxy.open(opening)
        yield opening, proxy, me


def write_down(instance: Instance, me: Kept) -> None:
    """Record the supervisor of an instance. Raises OSError."""
    state_file.write(_file(instance.folder), asdict(me))


def stop_all(instance: Instance) -> bool:
    """End the supervisor of a folder and everything it started; return whether anything ran.

    Raises NotEnded if something still runs.
    """
    supervision = Supervision(instance.folder)
    found = supervision.end(PATIENCE)
    if not instance.folder.exists():  # deleted, or never there
        return end_what_is_left(instance) or found
    if not supervision.take():
        if found:  # another one has started in the meantime
            return True
        raise NotEnded(f"another command is starting or stopping the server in {instance.folder}; try again")
    try:
        return end_what_is_left(instance) or found
    finally:
        supervision.leave()


def end_what_is_left(instance: Instance) -> bool:
    """End what a killed supervisor left running, and delete its state; return whether anything ran.

    Raises NotEnded if something still runs; the state is kept then.
    """
    state = kept_in(instance.folder)
    found, faults = False, []
    for stop in (door_of(instance).close, twin_of(instance.folder).stop, instance.stop):
        try:
            found |= stop()
        except NotEnded as fault:  # the others may still end
            faults.append(str(fault))
    if faults:
        raise NotEnded("; ".join(faults))
    if state is not None:
        remove(state.scratch, instance.folder)
    _file(instance.folder).unlink(missing_ok=True)
    return found


def left_in(instance: Instance) -> list[Process]:
    """Return the nginx and TorchServe processes of a folder, recorded or not."""
    servers = [one for each in (instance, twin_of(instance.folder)) for one in each.family()]
    return [*door_of(instance).family(), *servers]


def door_of(instance: Instance) -> Proxy:
    """Return the reverse proxy of an instance."""
    return Proxy(instance.folder / "door")


class Supervisor:
    """Checks the active server every second, and restarts it when it has ended.

    `start` starts the archives in a slot and returns when they are ready. `turn` is held during a restart, so
    that the slots are not exchanged in the meantime.
    """

    def __init__(self, places: Places, start: Callable[[Place], Running], seen: Health) -> None:
        self._places, self._start, self._seen = places, start, seen
        self._tries, self._next_try = 0, 0.0
        self._silent = 0
        self.turn = threading.Lock()

    def keep(self, hold_on: Callable[[], None]) -> NoReturn:
        """Start the server and keep it running. Raises what the first `start` raises.

        `hold_on` is called before every check.
        """
        self._start(self._places.answering)
        orphans: set[int] = set()
        while True:
            try:
                hold_on()
                if os.getpid() == FIRST:
                    orphans = _reaped(orphans)
                self._look()
            except Exception as error:  # noqa: BLE001 whatever it is, the next check may succeed
                say(traceback.format_exc())
                self._seen.saw(f"it cannot be checked: {error}")
            time.sleep(EVERY)

    def _look(self) -> None:
        with self.turn:
            place = self._places.answering
            state = place.instance.running() or self._again(place)
        if state is None:
            return
        fault = self._silence(place, state) or fault_of(state)
        with self.turn:
            if self._places.answering is place:  # else the slots were exchanged
                self._seen.saw(fault)

    def _silence(self, place: Place, state: Running) -> str | None:
        """Return a fault if TorchServe does not answer at all, else None; end it if that persists."""
        try:
            ask(state.inference, PING, ANSWER)
        except OSError as error:
            self._silent += 1
            fault = f"TorchServe does not answer: {error}"
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
        """Restart a server; None if it does not become ready, or the next attempt is not due."""
        self._seen.saw("it ended by itself and is being restarted", live=False)
        if time.monotonic() < self._next_try:
            return None
        try:
            state = self._start(place)
        except Exception as error:  # noqa: BLE001 whatever it is, the next attempt may succeed
            say(f"error: {error}")
            place.instance.stop()
            self._next_try = time.monotonic() + PAUSES[min(self._tries, len(PAUSES) - 1)]
            self._tries += 1
            return None
        self._tries, self._next_try = 0, 0.0
        return state


def _reaped(before: set[int]) -> set[int]:
    """Reap orphans that have ended: the first process of a container inherits them.

    Return the zombies found now. They are reaped at the next check: by then this process has waited for its
    own children, whose status must not be taken from it.
    """
    now = {one.pid for one in processes() if one.parent == FIRST and one.state in ENDED}
    for pid in before & now:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return now


def _file(folder: Path) -> Path:
    return folder / "keeper.json"
