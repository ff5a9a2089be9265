"""A steady mix of good, bad and hostile requests, while memory and answers are watched."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import requests

from bench.hostile.mutations import mutation, originals
from bench.hostile.requests import hostile_requests
from bench.hostile.sending import sent, sound
from bench.load.images import DIGITS, VARIANTS, opened
from bench.report.soak import Sample, Seen, write_report
from bench.servers.stack import Stack, pids, resident, started

GOOD_CLIENTS, PAUSE = 8, 0.01  # and a client's seconds between two images
BAD_PAUSE, HOSTILE_PAUSE = 0.05, 0.5
EVERY = 2.0  # seconds between two samples
PATIENCE = 60.0  # seconds for one answer
# Left out: they take minutes each, and `make fuzz` sends them.
NOT_HERE = ("bodies of a gigabyte", "slow senders")
OK = 200
# A damaged file may have grown beyond the largest body.
REFUSALS = (400, 413)


def main() -> int:
    """Draw docs/soak.png, write docs/soak.md; return 1 if an answer is wrong or missing or a worker dies."""
    arguments = _arguments()
    seen = Seen()
    with tempfile.TemporaryDirectory() as run, started(arguments.archive, Path(run)) as stack:
        before = pids(stack)
        with _sending(stack, seen):
            samples = list(_samples(stack, seen, arguments.minutes * 60))
        died = len(before - pids(stack))
    print(write_report(samples, seen, died))
    print(*seen.wrong[:20], *seen.failed[:20], sep="\n", file=sys.stderr)
    return int(bool(seen.wrong or seen.failed or died))


@contextlib.contextmanager
def _sending(stack: Stack, seen: Seen) -> Iterator[None]:
    """Let all clients send for as long as this lasts."""
    stop = threading.Event()
    clients = [(_good(stack, seen, number), PAUSE) for number in range(GOOD_CLIENTS)]
    clients += [(_bad(stack, seen), BAD_PAUSE), (_hostile(stack, seen), HOSTILE_PAUSE)]

    def send(once: Callable[[int], None], pause: float) -> None:
        for number in count():
            if stop.wait(pause):
                return
            try:
                once(number)
            except Exception as error:  # noqa: BLE001 whatever it is, no answer came
                seen.fail(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=send, args=client) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _good(stack: Stack, seen: Seen, first: int) -> Callable[[int], None]:
    """Return a function that sends a good image, of all kinds in turn, and checks the answer."""
    images = [(digit, make(opened(DIGITS[digit]))) for make in VARIANTS.values() for digit in ("2", "5", "8")]
    session = _session()

    def once(number: int) -> None:
        digit, image = images[(first * len(images) // GOOD_CLIENTS + number) % len(images)]
        began = time.monotonic()
        reply = session.put(stack.predictions, image, timeout=PATIENCE)
        if (reply.status_code, reply.text) == (OK, digit):
            seen.right(time.monotonic() - began)
        elif reply.status_code == OK:
            seen.err(f"{digit} was answered by {reply.text!r}")
        else:
            seen.fail(f"{reply.status_code} {reply.text[:200]!r}")

    return once


def _bad(stack: Stack, seen: Seen) -> Callable[[int], None]:
    """Return a function that sends a damaged image: a label, or an error message, is right."""
    files = originals()
    session = _session()
    labels = set(DIGITS)

    def once(number: int) -> None:
        kind = list(files)[number % len(files)]
        reply = session.put(stack.predictions, mutation(files, kind, number, seed=1), timeout=PATIENCE)
        refused = reply.status_code in REFUSALS and "send" in reply.text
        if refused or (reply.status_code == OK and reply.text in labels):
            seen.refuse()
        else:
            seen.fail(f"{kind} {number}: {reply.status_code} {reply.text[:200]!r}")

    return once


def _hostile(stack: Stack, seen: Seen) -> Callable[[int], None]:
    """Return a function that sends a hostile request: anything but 5xx and silence is right."""
    kinds = hostile_requests(DIGITS["2"])
    hostile = [one for kind, all_of_it in kinds.items() if kind not in NOT_HERE for one in all_of_it]

    def once(number: int) -> None:
        one = hostile[number % len(hostile)]
        reply = sent(stack.door, one)
        if sound(one, reply):
            seen.refuse()
        else:
            seen.fail(f"{one.name}: {reply.status} {reply.text[:200]!r}")

    return once


def _samples(stack: Stack, seen: Seen, seconds: float) -> Iterator[Sample]:
    """Yield what was seen in each interval, and the memory at its end."""
    began = last = time.monotonic()
    while last < began + seconds:
        time.sleep(EVERY)
        now = time.monotonic()
        latencies, refused = seen.taken()
        yield Sample(now - began, now - last, latencies, refused, resident(stack))
        last = now


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # this machine's own address needs no proxy
    return session


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--minutes", type=float, default=20.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
