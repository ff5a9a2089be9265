"""Answer images one by one in a process that may crash; the caller survives, and knows which image it was."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from marctl.archive.opened import Opened

PATIENCE = 60.0  # wall-clock seconds for one image; more counts as hanging
SLOW = 5.0  # processor seconds
LARGE = 1_000.0  # MB that one image may add to the process
KILOBYTE, MEGABYTE = 1024, 1e6
OK, REFUSED = 200, 400
SENTENCE = 600  # characters; more is not a message but a leak of the input
STANDARD_ERROR = 2
DIED, HUNG = "died", "hung"

Body = Callable[[int], bytes]  # the image with a number


@dataclass(frozen=True)
class Outcome:
    """The result of one image: the HTTP status and the answer, the cost, or how the process ended."""

    number: int
    status: int
    text: str
    seconds: float = 0.0  # of the processor
    memory: float = 0.0  # MB by which the process's peak grew
    end: str = ""  # DIED or HUNG

    @property
    def cost(self) -> str | None:
        """Return its cost as text if that is too much for an image."""
        if self.seconds > SLOW:
            return f"it took {self.seconds:.1f} s"
        return f"it took {self.memory:,.0f} MB" if self.memory > LARGE else None

    def fault(self, labels: Sequence[str]) -> str | None:
        """Return what is wrong; None if the answer is a label, or 400 with an error message."""
        if self.end:
            return f"the process {self.end}: {self.text}"
        if self.status == OK:
            return None if self.text in labels else f"the answer {self.text!r} is not a label"
        if self.status == REFUSED and "send" in self.text and len(self.text) <= SENTENCE:
            return None
        return f"{self.status} {self.text[:SENTENCE]!r} is not a refusal with a message"


def answered(archive: Path, numbers: Iterable[int], body: Body) -> Iterator[Outcome]:
    """Yield each image's outcome; after a crash or a hang, continue with the next one."""
    left = list(numbers)
    while left:
        for outcome in _until_it_ends(archive, tuple(left), body):
            yield outcome
            left.remove(outcome.number)


def _until_it_ends(archive: Path, numbers: Sequence[int], body: Body) -> Iterator[Outcome]:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    # Not forked: fork() does not copy ONNX Runtime's threads.
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_answer, args=(archive, numbers, body, theirs))
    process.start()
    theirs.close()
    try:
        for number in numbers:
            if not ours.poll(PATIENCE):
                yield Outcome(number, 0, f"no answer within {PATIENCE:.0f} s", end=HUNG)
                return
            try:
                outcome: Outcome = ours.recv()
            except EOFError:
                process.join()
                yield Outcome(number, 0, f"exit code {process.exitcode}", end=DIED)
                return
            yield outcome
            if outcome.memory > LARGE:  # its peak would hide the next one's
                return
    finally:
        process.kill()
        process.join()
        ours.close()


def _answer(archive: Path, numbers: Sequence[int], body: Body, out: Connection) -> None:
    logging.disable(logging.WARNING)
    with Opened(archive) as engine, Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), STANDARD_ERROR)  # decoders in C complain there about each image
        for number in numbers:
            image = body(number)
            began, peak = time.process_time(), _peak()
            [answer] = engine.predict([image])
            seconds = time.process_time() - began
            text = answer.reason or str(answer.body)
            out.send(Outcome(number, answer.status, text, seconds, _peak() - peak))


def _peak() -> float:
    """Return the peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE / MEGABYTE
