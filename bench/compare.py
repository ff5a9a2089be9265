"""Put two checkouts under the same load, in turn, to measure what a change costs or gains.

Each is started with its own `make serve`, so the other one may be of another age and layout.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import requests
from tqdm import tqdm

from bench.load.images import LABEL, load_images
from bench.load.wrk import Request, check_wrk, load
from bench.report.markdown import circumstances, table
from bench.servers.candidates import PREDICTIONS
from bench.servers.checkout import ROOT, make
from bench.servers.processes import ANSWER, Cost, Family, free_port, listener
from bench.serving import SHORT, Plan, warm_up

ROUNDS = 10
SECONDS = 3  # of one run
MILLISECOND, SECOND = 1e3, 1e6  # microseconds
WARM_UP = 40  # seconds at most, for Java's compiler
STARTS = 4  # the first one builds what is missing, and does not count
# What is measured in a run, and its format.
FIGURES = {"answers/s": ",.0f", "p50, ms": ".2f", "processor, µs an answer": ",.0f"}


@dataclass
class Side:
    """One of the two: its checkout, its server's port and folder, and its measurements."""

    name: str
    checkout: Path
    port: int
    run: Path
    starts: list[float] = field(default_factory=list)  # seconds
    runs: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)  # FIGURES, by case
    memory: Cost = field(default_factory=lambda: Cost(0, 0, 0))  # after the load

    def start(self) -> None:
        """Start its server; `make serve` returns when it is ready."""
        began = time.monotonic()
        make("serve", checkout=self.checkout, RUN=self.run, PORT=self.port)
        self.starts.append(time.monotonic() - began)

    def stop(self) -> None:
        """Stop its server."""
        make("stop", checkout=self.checkout, RUN=self.run)


def main() -> None:
    """Start, load and measure both in turn, and print the tables."""
    arguments = _arguments()
    check_wrk()
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch, contextlib.ExitStack() as at_the_end:
        folder = Path(scratch)
        sides = [
            Side(name, checkout, free_port(), folder / name)
            for name, checkout in (("this", ROOT), ("other", arguments.other.resolve()))
        ]
        for side in sides:
            at_the_end.callback(side.stop)
        _start(sides)
        _load(sides, arguments.rounds, arguments.seconds, folder)
        for side in sides:
            side.memory = Family(listener(side.port)).cost()
    print(f"{_speeds(*sides)}\n\n{_costs(*sides)}\n\n{circumstances('torchserve', 'onnxruntime')}")


def _start(sides: Sequence[Side]) -> None:
    """Start both STARTS times, in turn, and leave them running."""
    for turn in tqdm(range(STARTS), "starts"):
        for side in _rotated(sides, turn):
            if turn:
                side.stop()
            side.start()
    for side in sides:
        del side.starts[0]


def _load(sides: Sequence[Side], rounds: int, seconds: int, folder: Path) -> None:
    """Load both in turn, run by run, so that a slow minute of the machine affects both."""
    images = load_images()
    plan = Plan(rounds, seconds, WARM_UP, SHORT.cases)
    for side in tqdm(sides, "warm-up"):
        for image, counts in plan.cases.items():
            _check(side, images[image])
            warm_up(side.port, Request(PREDICTIONS, images[image]), max(counts), plan, folder)
    cases = [(image, count) for image, counts in plan.cases.items() for count in counts]
    for turn in tqdm(range(rounds), "rounds"):
        for image, count in cases:
            for side in _rotated(sides, turn):
                run = _run(side, Request(PREDICTIONS, images[image]), count, seconds, folder)
                side.runs.setdefault(f"{image}, {count}", []).append(run)


def _run(side: Side, request: Request, connections: int, seconds: int, folder: Path) -> tuple[float, ...]:
    """Return the FIGURES of one run. Raises RuntimeError if a request failed."""
    family = Family(listener(side.port))
    before = family.cost().seconds
    answers = load(side.port, request, connections, seconds, folder)
    if answers.failed:
        raise RuntimeError(f"{side.checkout}: {answers.failed} of {answers.requests} requests failed")
    processor = (family.cost().seconds - before) / answers.requests
    return answers.per_second, answers.p50 / MILLISECOND, processor * SECOND


def _check(side: Side, image: bytes) -> None:
    reply = requests.put(f"http://127.0.0.1:{side.port}{PREDICTIONS}", image, timeout=ANSWER)
    if reply.text != LABEL:
        raise RuntimeError(f"{side.checkout} answers {reply.status_code} {reply.text[:200]!r}, not {LABEL}")


def _rotated(sides: Sequence[Side], turn: int) -> Sequence[Side]:
    return sides if turn % 2 else sides[::-1]


def _speeds(this: Side, other: Side) -> str:
    """Return the medians of each case's runs, and the medians of the rounds' ratios."""
    head = ["image, connections", *(cell for name in FIGURES for cell in (name, "other", "ratio"))]
    rows = []
    for case, runs in this.runs.items():
        cells = [case]
        for place, form in enumerate(FIGURES.values()):
            pairs = [(one[place], two[place]) for one, two in zip(runs, other.runs[case], strict=True)]
            cells += _compared(pairs, form)
        rows.append(cells)
    return table(head, rows)


def _costs(this: Side, other: Side) -> str:
    starts = list(zip(this.starts, other.starts, strict=True))
    return table(
        ["", "this", "other", "ratio"],
        [
            ["start to ready, s", *_compared(starts, ".2f")],
            ["memory of a worker, MB", *_compared([(this.memory.largest, other.memory.largest)], ".0f")],
            ["memory of all processes, MB", *_compared([(this.memory.memory, other.memory.memory)], ".0f")],
        ],
    )


def _compared(pairs: Sequence[tuple[float, float]], form: str) -> list[str]:
    """Return the median of each side, and the median of the pairs' ratios."""
    this, other = (format(median(side), form) for side in zip(*pairs, strict=True))
    return [this, other, f"{median(one / two for one, two in pairs):.3f}"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the other checkout, with its environment in .venv")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="seconds of one run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
