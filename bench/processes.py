"""A server under load: its processes, what they cost, and their end."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psutil

GRACE = 10  # seconds in which a server may end by itself
MEGABYTE = 1e6


@dataclass(frozen=True)
class Cost:
    """What all processes of a server take: processor seconds so far, resident memory in MB."""

    seconds: float
    memory: float
    largest: float  # of the largest Python process: a worker


class Family:
    """A process with all its descendants."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self._seen: dict[psutil.Process, float] = {}

    def members(self) -> list[psutil.Process]:
        """Return those that live."""
        try:
            return [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cost(self) -> Cost:
        """Return what they have taken; a process that has ended counts as it was last seen."""
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
        """End them, by force where they do not heed."""
        members = self.members()
        if members:
            members[0].terminate()
        _, alive = psutil.wait_procs(members, timeout=GRACE)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive)
