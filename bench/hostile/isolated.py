"""Images answered one by one in a process that may die of them; the caller lives on, and knows of which."""

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

PATIENCE = 60.0  # wall-clock seconds for one image; what takes longer counts as hanging
SLOW = 5.0  # processor seconds
LARGE = 1_000.0  # MB that one image may take on top of what the process has
KILOBYTE, MEGABYTE = 1024, 1e6
OK, REFUSED = 200, 400
SENTENCE = 600  # characters; more is no sentence but a leak of what came
STANDARD_ERROR = 2
DIED, HUNG = "died", "hung"

Body = Callable[[int], bytes]  # the image of a number


@dataclass(frozen=True)
class Outcome:
    """What came of one image: the HTTP status and the answer, the cost, or how the process ended."""

    number: int
    status: int
    text: str
    seconds: float = 0.0  # of the processor
    memory: float = 0.0  # MB by which the process's peak grew
    end: str = ""  # DIED or HUNG

    @property
    def cost(self) -> str | None:
        """Say what it cost where that is more than an image is worth."""
        if self.seconds > SLOW:
            return f"it took {self.seconds:.1f} s"
        return f"it took {self.memory:,.0f} MB" if self.memory > LARGE else None

    def fault(self, labels: Sequence[str]) -> str | None:
        """Say what is not as it must be; None where a label came, or 400 and a sentence."""
        if self.end:
            return f"the process {self.end}: {self.text}"
        if self.status == OK:
            return None if self.text in labels else f"the answer {self.text!r} is no label"
        if self.status == REFUSED and "send" in self.text and len(self.text) <= SENTENCE:
            return None
        return f"{self.status} {self.text[:SENTENCE]!r} is no refusal with a sentence"


def answered(archive: Path, numbers: Iterable[int], body: Body) -> Iterator[Outcome]:
    """Yield what comes of each number's image; after a death or a hang go on with the next one."""
    left = list(numbers)
    while left:
        for outcome in _until_it_ends(archive, tuple(left), body):
            yield outcome
            left.remove(outcome.number)


def _until_it_ends(archive: Path, numbers: Sequence[int], body: Body) -> Iterator[Outcome]:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    # Not forked: ONNX Runtime's threads would not come along.
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
        os.dup2(nowhere.fileno(), STANDARD_ERROR)  # decoders in C complain of each image there
        for number in numbers:
            image = body(number)
            began, peak = time.process_time(), _peak()
            [answer] = engine.predict([image])
            seconds = time.process_time() - began
            said = answer.reason or str(answer.body)
            out.send(Outcome(number, answer.status, said, seconds, _peak() - peak))


def _peak() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE / MEGABYTE
