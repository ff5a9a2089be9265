"""Measure servers side by side: throughput, latency, processor time, memory, time to the first answer."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests
from tqdm import tqdm

from bench.load.images import LABEL, load_images
from bench.load.wrk import Answers, Request, check_wrk, load
from bench.report.serving import write_report
from bench.servers.candidates import Candidate, own_candidates
from bench.servers.other_servers import other_candidates
from bench.servers.processes import Family, free_port

START = 120.0  # seconds in which a server must answer
POLL = 0.02


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rounds, the seconds of a run and at most of a warm-up, and the connections by image."""

    rounds: int
    seconds: int
    warm_up: int
    cases: dict[str, tuple[int, ...]]


# Twelve megapixels keep most servers busy for a tenth of a second: more connections only wait longer.
SMALL, WEB, PHOTO = "28x28 PNG", "250x250 RGBA PNG", "12-megapixel JPEG"
ALL = Plan(3, 2, 40, {SMALL: (1, 8, 32, 128), WEB: (1, 8, 32, 128), PHOTO: (1, 8)})
SHORT = Plan(3, 2, 4, {SMALL: (1, 32), WEB: (32,), PHOTO: (8,)})
WARM_UP = 32  # connections, at most
# A warm-up ends when NO_FASTER runs in a row were not FASTER than the best before: a single slow one may be
# due to the machine.
FASTER, NO_FASTER = 1.02, 3
SHORT_SERVERS = 3  # plain, ours, and a handler that computes nothing


def main() -> None:
    """Measure as the command line says, and write the report."""
    arguments = _arguments()
    logging.disable(logging.WARNING)
    check_wrk()
    servers = own_candidates(arguments.archive)
    servers = servers + other_candidates(arguments.archive) if arguments.all else servers[:SHORT_SERVERS]
    for server in tqdm(servers, "environments", unit="server", disable=not arguments.all):
        server.install()
    rows = list(measure(servers, ALL if arguments.all else SHORT))
    write_report(rows, complete=arguments.all)


def measure(servers: Sequence[Candidate], plan: Plan) -> Iterator[dict[str, object]]:
    """Yield a row for each run. All servers take part in each round, so a slow minute affects all of them."""
    images = load_images()
    todo = [(number, server) for number in range(plan.rounds) for server in servers]
    for number, server in tqdm(todo, "rounds", unit="server"):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            yield from _round(server, plan, images, number, Path(folder))


def _round(
    server: Candidate, plan: Plan, images: dict[str, bytes], number: int, folder: Path
) -> Iterator[dict[str, object]]:
    port = free_port()
    began = time.monotonic()
    family = Family(server.start(port, folder))
    try:
        first = _first_answer(server, port, images[SMALL], family) - began
        for image, counts in plan.cases.items():
            warm_up(port, server.request(images[image]), max(counts), plan, folder)
            for connections in counts:
                before = family.cost()
                answers = load(port, server.request(images[image]), connections, plan.seconds, folder)
                after = family.cost()
                yield {
                    "server": server.name, "kind": server.kind, "round": number, "image": image,
                    "connections": connections, "first_answer": first, **_figures(answers),
                    "cpu_per_1000": 1000 * (after.seconds - before.seconds) / max(answers.requests, 1),
                    "memory": after.memory, "worker_memory": after.largest,
                }  # fmt: skip
    finally:
        family.end()


def warm_up(port: int, request: Request, connections: int, plan: Plan, folder: Path) -> None:
    """Load a server until it gets no faster: Java compiles hot code, for half a minute."""
    best, waited = 0.0, 0
    for _ in range(plan.warm_up // plan.seconds):
        speed = load(port, request, min(connections, WARM_UP), plan.seconds, folder).per_second
        waited = 0 if speed > best * FASTER else waited + 1
        if waited == NO_FASTER:
            return
        best = max(best, speed)


def _figures(answers: Answers) -> dict[str, object]:
    figures = {"per_second": answers.per_second, "p50": answers.p50, "p99": answers.p99}
    return {**figures, "failed": answers.failed}


def _first_answer(server: Candidate, port: int, image: bytes, family: Family) -> float:
    """Return when the server first answered correctly. Raises RuntimeError if it never does."""
    request = server.request(image)
    url = f"http://127.0.0.1:{port}{request.path}"
    end = time.monotonic() + START
    last = "nothing"
    while time.monotonic() < end and family.members():
        try:
            reply = requests.request(
                request.method, url, data=request.body, headers=request.headers, timeout=START
            )
            if reply.ok and server.answer(reply.content) == LABEL:
                return time.monotonic()
            last = f"{reply.status_code}: {reply.text[:200]}"
        except requests.RequestException as error:
            last = str(error)
        time.sleep(POLL)
    raise RuntimeError(f"{server.name} did not answer {LABEL} to the first image; it answered {last}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--all", action="store_true", help="also the servers that people use instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
