"""The processes of a server, their cost and their end; free ports, and waiting for a condition."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import requests

from marctl.serve.ports import why_not

GRACE = 10  # seconds for a server to end by itself
MEGABYTE = 1e6
POLL = 0.02  # seconds between two checks
ANSWER = 30.0  # seconds for one answer
# Below the ports that the kernel gives to clients, so that a restarted server finds its own still free.
PORTS = range(20_000, 30_000)


@dataclass(frozen=True)
class Cost:
    """What all processes of a server use: processor seconds so far, resident memory in MB."""

    seconds: float
    memory: float
    largest: float  # of the largest process except Java: a worker


class Family:
    """A process with all its descendants."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self._seen: dict[psutil.Process, float] = {}

    def members(self) -> list[psutil.Process]:
        """Return those that are alive."""
        try:
            return [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cost(self) -> Cost:
        """Return what they have used; a process that has ended counts as it was last seen."""
        memory, largest = 0.0, 0.0
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                times, resident = member.cpu_times(), member.memory_info().rss / MEGABYTE
                self._seen[member] = times.user + times.system
                memory += resident
                if "java" not in member.name():
                    largest = max(largest, resident)
        return Cost(sum(self._seen.values()), memory, largest)

    def end(self) -> None:
        """Terminate the first, which ends the others; kill those still alive after GRACE."""
        members = self.members()
        if members:
            members[0].terminate()
        _, alive = psutil.wait_procs(members, timeout=GRACE)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive)


def free_port(count: int = 5) -> int:
    """Return the first of `count` adjacent free ports, at random, so that two runs do not collide."""
    while True:
        first = PORTS.start + secrets.randbelow(len(PORTS))
        if not any(why_not(port) for port in range(first, first + count)):
            return first


def listener(port: int) -> int:
    """Return the process that listens on a port. Raises LookupError."""
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
            return connection.pid
    raise LookupError(f"no process of this user listens on port {port}")


def answers(url: str) -> bool:
    """Return whether a server answers a GET with 2xx."""
    try:
        return requests.get(url, timeout=ANSWER).ok
    except requests.ConnectionError:
        return False


def until(condition: Callable[[], object], patience: float = 60.0) -> float:
    """Wait for a condition, and return the seconds that it took. Raises TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience:
            raise TimeoutError(f"it did not happen within {patience:.0f} seconds")
        time.sleep(POLL)
    return time.monotonic() - began
