"""Load one server with wrk: the same request over and over, on several connections."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
# Seconds until wrk gives up a request; the longest queue here is far shorter.
PATIENCE = 60


@dataclass(frozen=True)
class Request:
    """What is sent for an image."""

    path: str
    body: bytes
    method: str = "PUT"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """The results of a run: how many answers in how many seconds, and latencies in microseconds."""

    requests: int
    seconds: float
    p50: int
    p99: int
    refused: int  # answers with a status of 400 and above
    broken: int  # connections that failed
    late: int  # requests without an answer in time

    @property
    def per_second(self) -> float:
        """Right answers per second."""
        return (self.requests - self.refused) / self.seconds

    @property
    def failed(self) -> int:
        """Requests that did not get a 2xx answer."""
        return self.refused + self.broken + self.late


def check_wrk() -> None:
    """Exit with an error if wrk is missing."""
    if shutil.which("wrk") is None:
        sys.exit("error: wrk, the load generator, is missing; Debian, Ubuntu: apt-get install wrk")


def load(port: int, request: Request, connections: int, seconds: int, folder: Path) -> Answers:
    """Send a request on several connections at once, for some seconds."""
    body = folder / "body"
    body.write_bytes(request.body)
    # One thread of wrk: the server needs the other core more.
    command = [
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{PATIENCE}s", "-s", str(SCRIPT)),
        *(f"http://127.0.0.1:{port}{request.path}", "--", request.method, str(body)),
        *(word for header in request.headers.items() for word in header),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Answers(**json.loads(done.stdout.splitlines()[-1]))
