"""Clients that send known images without a pause, and record the answers."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

PATIENCE = 60.0  # seconds for one answer
AWAY = 503


@dataclass
class Clients:
    """`count` threads against one port; in a `with`, they send for as long as it lasts."""

    port: int
    images: dict[str, bytes]  # by their labels
    count: int = 32
    # What another version answers to the digits from 0 on, which is also right.
    others: tuple[str, ...] = ()
    # Whether a client that is told to retry later stops, like one that can ask another server.
    leave_when_refused: bool = False
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0  # seconds for one right answer
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Clients:
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(self.count)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def sent(self) -> int:
        """How many requests have ended, whatever the outcome."""
        return self.right + len(self.wrong) + self.failed.total()

    @property
    def refused(self) -> int:
        """How many were told when to retry."""
        return sum(count for said, count in self.failed.items() if said.startswith(f"{AWAY}, Retry-After "))

    def _send(self, number: int) -> None:
        labels = list(self.images)
        while not self._stop.is_set():
            number += 1
            label = labels[number % len(labels)]
            status = self._send_one(self.images[label], label)
            if status == AWAY and self.leave_when_refused:
                return

    def _send_one(self, image: bytes, label: str) -> int:
        """Send one image over a connection of its own; return the status, 0 if none came."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("PUT", "/predictions/convnet", image)
            reply = connection.getresponse()
            answer = reply.read().decode()
            said = f"{reply.status}, Retry-After {reply.getheader('Retry-After')}"
        except (OSError, http.client.HTTPException) as error:
            self._count(type(error).__name__)
            return 0
        finally:
            connection.close()
        self._count(None if reply.status == http.client.OK else said, answer, label, began)
        return reply.status

    def _count(self, fault: str | None, answer: str = "", label: str = "", began: float = 0.0) -> None:
        with self._lock:
            if fault is not None:
                self.failed[fault] += 1
            elif answer != label and answer not in self.others[int(label) :][:1]:
                self.wrong.append(f"{label} was answered by {answer!r}")
            else:
                self.longest = max(self.longest, time.monotonic() - began)
                self.right += 1
