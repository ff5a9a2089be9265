"""What `make up` started, seen from outside: its addresses, its processes, its health."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import psutil
import requests

from ports import why_not

ROOT = Path(__file__).parents[1]
WORKER = "model_service_worker"
ANSWER = 30.0  # seconds for one answer
POLL = 0.02  # seconds between two looks


@dataclass(frozen=True)
class Up:
    """The front door's port, TorchServe's first port, and the folder in which they run."""

    door: int
    port: int
    run: Path

    @property
    def url(self) -> str:
        """The front door's address."""
        return f"http://127.0.0.1:{self.door}"

    @property
    def inference(self) -> str:
        """TorchServe's own address of predictions."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def management(self) -> str:
        """TorchServe's own address of models."""
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def predictions(self) -> str:
        """The address that answers pictures."""
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
        """TorchServe's workers that live."""
        try:
            return [one for one in self.java.children() if WORKER in " ".join(one.cmdline())]
        except (psutil.NoSuchProcess, FileNotFoundError):  # Java has ended, and may be starting again
            return []

    def status(self, path: str) -> int:
        """Return the status of a GET through the front door."""
        return int(requests.get(f"{self.url}{path}", timeout=ANSWER).status_code)

    @property
    def is_ready(self) -> bool:
        """Whether the front door says that the server is ready."""
        return self.status("/health/ready") == HTTPStatus.OK

    @property
    def _state(self) -> dict[str, str | int]:
        state: dict[str, str | int] = json.loads((self.run / "server.json").read_text(encoding="utf-8"))
        return state


def pids(up: Up) -> set[int]:
    """Return the processes that answer, Java and its workers, as soon as all are ready."""
    until(lambda: up.is_ready)
    return {up.java.pid, *(worker.pid for worker in up.workers)}


@contextlib.contextmanager
def started(archive: Path, first_port: int, run: Path, within: Iterable[str] = ()) -> Iterator[Up]:
    """Serve an archive as `make up` does, on free ports from this one on, in a folder; stop it at the end.

    `within` are words before the command, such as those of a limit to its memory.
    """
    door = _free(first_port)
    up = Up(door, _free(door + 10), run)
    ports = ("--port", str(up.port), "--door", str(up.door))
    serve(up, "up", *ports, "--rate", "1000000", "--connections", "1000", str(archive), within=within)
    try:
        yield up
    finally:
        serve(up, "stop")


def serve(up: Up, *words: str, within: Iterable[str] = ()) -> None:
    """Run servers/serve.py for what runs in this folder."""
    command = [*within, sys.executable, str(ROOT / "servers" / "serve.py"), "--run", str(up.run), *words]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _free(first: int) -> int:
    """Return the first of five ports that are free."""
    tens = range(first, first + 1000, 10)
    return next(port for port in tens if not any(why_not(port + i) for i in range(5)))


def until(condition: Callable[[], object], patience: float = 60.0) -> float:
    """Wait for a condition, and return the seconds that it took. Raises TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience:
            raise TimeoutError(f"it did not happen within {patience:.0f} seconds")
        time.sleep(POLL)
    return time.monotonic() - began
