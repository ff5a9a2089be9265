"""Keeps a TorchServe up behind its front door, from its first answer to its last."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import psutil

from front_door import DRAIN, HEALTH_SOCKET, FrontDoor, Opening
from health import Health
from instance import STOP_GRACE, Instance, Running, process_of
from process_end import end, living
from readiness import fault_of

EVERY = 1.0  # seconds between two looks at the server
# Seconds before another try to start a server that does not become ready; the last one counts on.
PAUSES = (1, 2, 5, 10, 30)
# The socket in it is reached by nginx's processes, which are nobody's; no other file in it is.
THROUGH = 0o711


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
    def process(self) -> psutil.Process | None:
        """The keeper's process, None where it has ended."""
        return living(self.pid, self.created)


def kept_in(folder: Path) -> Kept | None:
    """Return who keeps the server of this folder, or kept it last; None where nobody did."""
    try:
        return Kept(**json.loads(_file(folder).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


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
    """End who keeps an instance's server, and the server with it; return whether there was a keeper."""
    state = kept_in(instance.folder)
    if state is None:
        return False
    if (process := state.process) is not None:
        process.terminate()
        end([process], DRAIN + STOP_GRACE + DRAIN)
    # What it would have put away itself, had nobody killed it.
    door_of(instance).close()
    shutil.rmtree(state.scratch, ignore_errors=True)
    _file(instance.folder).unlink(missing_ok=True)
    return process is not None


def door_of(instance: Instance) -> FrontDoor:
    """Return the front door of an instance."""
    return FrontDoor(instance.folder / "door")


def keep(start: Callable[[], Running], health: Health) -> NoReturn:
    """Start the server, look at it every second, and start it again whenever it has ended.

    Raises what `start` does, the first time.
    """
    state = start()
    while True:
        if process_of(state) is None:
            health.saw("it ended by itself and is started again", live=False)
            state = _again(start)
        health.saw(fault_of(state))
        time.sleep(EVERY)


def _again(start: Callable[[], Running]) -> Running:
    tries = 0
    while True:
        try:
            return start()
        except Exception as error:  # noqa: BLE001 whatever it is, the next try may find it mended
            print(f"error: {error}", flush=True)
            time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1


def _file(folder: Path) -> Path:
    return folder / "keeper.json"
