"""What faults cost the clients of the front door: each is done for real, while clients send and check."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clients import Clients
from marked import replace_marked
from process_end import lives
from report import circumstances, table
from up import ANSWER
from up_process import Up, serve, started, until

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"
PICTURES = {str(digit): (ROOT / "tests" / "images" / f"{digit}.png").read_bytes() for digit in range(10)}
FIRST_PORT = 23_000
RAMP = 1_000  # answers before a fault and after it
MINUTE = 60.0  # seconds

Harm = Callable[[Up], float]  # does a fault, and returns the seconds until all is as it was


@dataclass(frozen=True)
class Row:
    """What the clients of one fault saw, and how long it lasted."""

    name: str
    clients: Clients
    recovery: float

    @property
    def cells(self) -> list[str]:
        """The row as the table has it."""
        seen = self.clients
        broken = seen.failed.total() - seen.refused
        counted = (seen.sent, seen.right, len(seen.wrong), broken, seen.refused)
        return [self.name, *(f"{number:,}" for number in counted), f"{self.recovery:.1f} s"]


def main() -> None:
    """Do each fault before a server of its own; print the table, and write it into docs/faults.md."""
    archive = _arguments().archive
    head = ["fault", "sent", "answered rightly", "wrongly", "failed", "told to come again", "as before after"]
    rows = [_row(name, harm, archive).cells for name, harm in FAULTS.items()]
    shown = table(head, rows)
    print(shown)
    replace_marked(PAGE, "faults", f"{shown}\n\n{circumstances('torchserve', 'onnxruntime')}")


def one_worker_killed(up: Up) -> float:
    """Kill a worker, with the requests that are in it."""
    victim = up.workers[0]
    victim.kill()
    return until(lambda: not lives(victim)) + _workers_back(up)


def a_worker_killed_for_a_minute(up: Up) -> float:
    """Kill a worker as soon as both are there, over and over."""
    end = time.monotonic() + MINUTE
    longest = 0.0
    while time.monotonic() < end:
        longest = max(longest, one_worker_killed(up))
        time.sleep(1)
    return longest


def one_worker_stopped(up: Up) -> float:
    """Let a worker stand still for longer than an answer may take."""
    began = time.monotonic()
    worker = up.workers[0]
    worker.suspend()
    time.sleep(ANSWER + 3)
    worker.resume()
    _workers_back(up)
    return time.monotonic() - began


def java_killed(up: Up) -> float:
    """Kill TorchServe's front end: nobody is there to answer until it is started again."""
    up.java.kill()
    return until(lambda: not up.is_ready) + until(lambda: up.is_ready)


def stopped(up: Up) -> float:
    """Stop it all: `make stop`."""
    began = time.monotonic()
    serve(up, "stop")
    return time.monotonic() - began


FAULTS: dict[str, Harm] = {
    "a worker killed": one_worker_killed,
    "a worker killed whenever both are there, for a minute": a_worker_killed_for_a_minute,
    f"a worker stopped for {ANSWER + 3} seconds": one_worker_stopped,
    "Java killed": java_killed,
    "`make stop`": stopped,
}


def _row(name: str, harm: Harm, archive: Path) -> Row:
    leaving = harm is stopped
    with (
        started(archive, FIRST_PORT) as up,
        Clients(up.door, PICTURES, leave_when_refused=leaving) as clients,
    ):
        until(lambda: clients.right > RAMP)
        recovery = harm(up)
        before = clients.right
        if harm is not stopped:
            until(lambda: clients.right > before + RAMP)
    return Row(name, clients, recovery)


def _workers_back(up: Up) -> float:
    return until(lambda: len(up.workers) == 2 and up.is_ready)  # noqa: PLR2004 as model-config.yaml has it


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
