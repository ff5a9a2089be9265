"""What `make up` started, seen from outside: its addresses, its processes, their health and memory."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import psutil
import requests

from bench.servers.checkout import make
from bench.servers.processes import ANSWER, MEGABYTE, free_port, until
from marctl.serve.front.supervisor import kept_in

WORKER = "model_service_worker"
# MB that each kind of process may keep after hostile input. A worker keeps up to the 64 MB of
# MALLOC_TRIM_THRESHOLD_, which marctl sets for workers, at the top of its heap, and more in holes below it.
# Java's heap grows to its peak use and shrinks late.
BOUND = {"worker": 100.0, "Java": 400.0, "nginx": 30.0, "supervisor": 30.0}
SETTLING = 60.0  # seconds until freed memory has been returned
EVERY = 2.0  # seconds between two checks


@dataclass(frozen=True)
class Stack:
    """The proxy's port, TorchServe's first port, and the folder in which they run."""

    door: int
    port: int
    run: Path

    @property
    def url(self) -> str:
        """The proxy's address."""
        return f"http://127.0.0.1:{self.door}"

    @property
    def inference(self) -> str:
        """TorchServe's own inference address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def management(self) -> str:
        """TorchServe's own management address."""
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def predictions(self) -> str:
        """The address that answers images."""
        return f"{self.url}/predictions/convnet"

    @property
    def scratch(self) -> Path:
        """Where TorchServe unpacks its models."""
        return Path(str(self._state["scratch"]))

    @property
    def java(self) -> psutil.Process:
        """TorchServe's front end."""
        return psutil.Process(int(self._state["pid"]))

    @property
    def workers(self) -> list[psutil.Process]:
        """TorchServe's live workers."""
        try:
            return [one for one in self.java.children() if WORKER in " ".join(one.cmdline())]
        except (psutil.NoSuchProcess, FileNotFoundError):  # Java has ended, and may be starting again
            return []

    def status(self, path: str) -> int:
        """Return the status of a GET through the proxy."""
        return int(requests.get(f"{self.url}{path}", timeout=ANSWER).status_code)

    @property
    def is_ready(self) -> bool:
        """Whether the proxy reports the server as ready."""
        return self.status("/health/ready") == HTTPStatus.OK

    @property
    def _state(self) -> dict[str, str | int]:
        state: dict[str, str | int] = json.loads((self.run / "server.json").read_text(encoding="utf-8"))
        return state


@contextlib.contextmanager
def started(archive: Path, run: Path, within: Iterable[str] = ()) -> Iterator[Stack]:
    """Serve an archive as `make up` does, in a folder; stop it at the end.

    `within` is a command prefix, such as that of a memory limit.
    """
    stack = Stack(free_port(1), free_port(), run)
    try:
        make(
            "up", within=within, RUN=run, MAR=archive.resolve(), DOOR=stack.door, PORT=stack.port,
            RATE=1_000_000, CONNECTIONS=1000,  # the load comes from one address
        )  # fmt: skip
        yield stack
    finally:
        make("stop", RUN=run)


def pids(stack: Stack) -> set[int]:
    """Return the processes that answer, Java and its workers, once all are ready."""
    until(lambda: stack.is_ready)
    return {stack.java.pid, *(worker.pid for worker in stack.workers)}


def resident(stack: Stack) -> dict[str, float]:
    """Return the resident MB of the largest process of each kind."""
    state = kept_in(stack.run)
    supervisors = [psutil.Process(state.pid)] if state and psutil.pid_exists(state.pid) else []
    kinds = {"worker": stack.workers, "Java": [stack.java], "nginx": _nginx(stack), "supervisor": supervisors}
    return {kind: max(map(_megabytes, processes), default=0.0) for kind, processes in kinds.items()}


def settled(stack: Stack, before: dict[str, float] | None = None) -> dict[str, float]:
    """Return the memory once it is within BOUND of `before`, or after SETTLING seconds."""
    end = time.monotonic() + SETTLING
    while True:
        now = resident(stack)
        if before is None or all(now[kind] <= before[kind] + BOUND[kind] for kind in BOUND):
            return now
        if time.monotonic() > end:
            return now
        time.sleep(EVERY)


def _nginx(stack: Stack) -> list[psutil.Process]:
    pid = int((stack.run / "door" / "nginx.pid").read_text(encoding="ascii"))
    with contextlib.suppress(psutil.NoSuchProcess):
        master = psutil.Process(pid)
        return [master, *master.children()]
    return []


def _megabytes(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        return float(process.memory_info().rss) / MEGABYTE
    return 0.0
