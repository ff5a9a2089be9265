"""What faults cost the clients of `make up`: each fault is real, while clients send and check."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import requests
from PIL import Image

from bench.load.clients import PATIENCE, Clients
from bench.load.images import DIGITS, encoded
from bench.report.markdown import circumstances, replace_marked, table
from bench.servers.checkout import ROOT, make
from bench.servers.limits import fill, memory_limit, small_disk
from bench.servers.processes import answers, until
from bench.servers.stack import Stack, pids, started
from marctl.serve.front.supervisor import door_of
from marctl.serve.front.up import ANSWER
from marctl.serve.processes import lives
from marctl.serve.torchserve.instance import Instance

PAGE = ROOT / "docs" / "faults.md"
RAMP = 1_000  # answers before a fault and after it
MINUTE = 60.0  # seconds
GIVEN_UP = 200.0  # seconds; model/model-config.yaml's responseTimeout is 120
SMALL_CONTAINER = 2**29  # bytes
LARGE_IMAGES = 5
LARGE = (8000, 8000)

Harm = Callable[[Stack], float]  # causes a fault, and returns the seconds until recovery


@dataclass(frozen=True)
class Row:
    """What the clients of one fault saw, and how long it lasted."""

    name: str
    clients: Clients
    recovery: float

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        seen = self.clients
        broken = seen.failed.total() - seen.refused
        counted = (seen.sent, seen.right, len(seen.wrong), broken, seen.refused)
        return [self.name, *(f"{number:,}" for number in counted), f"{self.recovery:.1f} s"]


def main() -> int:
    """Cause each fault on a server of its own; print the table, and write it to docs/faults.md."""
    archive = _arguments().archive
    if os.geteuid():
        print("error: only root can mount a disk and limit the memory; run this as root", file=sys.stderr)
        return 1
    head = ["fault", "sent", "right", "wrong", "failed", "told to retry", "recovered after"]
    rows = [_row(name, harm, archive).cells for name, harm in FAULTS.items()]
    shown = table(head, rows)
    print(shown)
    replace_marked(PAGE, "faults", f"{shown}\n\n{circumstances('torchserve', 'onnxruntime')}")
    return 0


def one_worker_killed(stack: Stack) -> float:
    """Kill a worker, with the requests that it holds."""
    victim = stack.workers[0]
    victim.kill()
    return until(lambda: not lives(victim)) + _workers_back(stack)


def a_worker_killed_for_a_minute(stack: Stack) -> float:
    """Kill a worker as soon as both are running, over and over."""
    end = time.monotonic() + MINUTE
    longest = 0.0
    while time.monotonic() < end:
        longest = max(longest, one_worker_killed(stack))
        time.sleep(1)
    return longest


def one_worker_stopped(stack: Stack) -> float:
    """Suspend a worker for longer than an answer may take."""
    began = time.monotonic()
    worker = stack.workers[0]
    worker.suspend()
    time.sleep(ANSWER + 3)
    worker.resume()
    _workers_back(stack)
    return time.monotonic() - began


def java_killed(stack: Stack) -> float:
    """Kill TorchServe's front end: nothing answers until it is restarted."""
    stack.java.kill()
    return until(lambda: not stack.is_ready) + until(lambda: stack.is_ready)


def proxy_killed(stack: Stack) -> float:
    """Kill all of nginx: nothing listens until it is restarted."""
    door = door_of(Instance(stack.run))
    for process in door.family():
        process.ask(signal.SIGKILL)
    return until(lambda: door.master is not None and answers(f"{stack.url}/health/ready"))


def proxys_master_killed(stack: Stack) -> float:
    """Kill only nginx's master: its workers answer what they have, and are replaced."""
    door = door_of(Instance(stack.run))
    before = door.family()
    before[0].ask(signal.SIGKILL)
    return until(lambda: not any(map(lives, before)) and answers(f"{stack.url}/health/ready"))


def worker_given_up(stack: Stack) -> float:
    """Suspend a worker until TorchServe gives it up and has replaced it."""
    began = time.monotonic()
    worker = stack.workers[0]
    worker.suspend()
    until(lambda: not lives(worker), patience=GIVEN_UP)
    _workers_back(stack)
    return time.monotonic() - began


def disk_full(stack: Stack) -> float:
    """Fill the logs' disk; kill a worker and then Java, and free the disk again."""
    full = fill(stack.run)
    one_worker_killed(stack)
    stack.java.kill()
    until(lambda: not stack.is_ready)
    full.unlink()
    return until(lambda: stack.is_ready)


def too_large(stack: Stack) -> float:
    """Send images that are too large for the available memory."""
    image = encoded(Image.new("RGBA", LARGE, (0, 0, 0, 128)), "PNG")
    before = pids(stack)
    began = time.monotonic()
    for _ in range(LARGE_IMAGES):
        reply = requests.put(stack.predictions, data=image, timeout=PATIENCE)
        if reply.status_code != HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"an image larger than the memory got {reply.status_code}: {reply.text}")
    took = time.monotonic() - began
    if pids(stack) != before:
        raise RuntimeError("a process ran out of memory")
    return took


def deployed(stack: Stack) -> float:
    """Deploy another version: `make deploy`."""
    began = time.monotonic()
    [served] = (stack.run / "served").glob("*.mar")
    make("deploy", RUN=stack.run, MAR=served)
    return time.monotonic() - began


def stopped(stack: Stack) -> float:
    """Stop everything: `make stop`."""
    began = time.monotonic()
    make("stop", RUN=stack.run)
    return time.monotonic() - began


FAULTS: dict[str, Harm] = {
    "a worker killed": one_worker_killed,
    "a worker killed whenever both are there, for a minute": a_worker_killed_for_a_minute,
    f"a worker stopped for {ANSWER + 3} seconds": one_worker_stopped,
    "a worker stopped until TorchServe gives it up": worker_given_up,
    "Java killed": java_killed,
    "nginx's master killed": proxys_master_killed,
    "all of nginx killed": proxy_killed,
    "the logs' disk full, a worker and Java killed on it": disk_full,
    f"{LARGE_IMAGES} images too large for a container of 512 MB": too_large,
    "`make deploy`": deployed,
    "`make stop`": stopped,
}


def _row(name: str, harm: Harm, archive: Path) -> Row:
    leaving = harm is stopped
    with (
        tempfile.TemporaryDirectory() as folder,
        small_disk(Path(folder)) as run,
        memory_limit(SMALL_CONTAINER) if harm is too_large else nullcontext(()) as within,
        started(archive, run, within) as stack,
        Clients(stack.door, DIGITS, leave_when_refused=leaving) as clients,
    ):
        until(lambda: clients.right > RAMP)
        recovery = harm(stack)
        before = clients.right
        if harm is not stopped:
            until(lambda: clients.right > before + RAMP)
    return Row(name, clients, recovery)


def _workers_back(stack: Stack) -> float:
    return until(lambda: len(stack.workers) == 2 and stack.is_ready)  # noqa: PLR2004 as model-config.yaml has it


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
