"""Print to stdout, which may be a file on a full disk, without stopping a server because of it."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable


def say(sentence: str) -> None:
    """Print a sentence and flush it, if possible."""
    try:
        print(sentence, flush=True)
    except BrokenPipeError:
        _discard_output()
    except OSError:  # a full disk
        pass


def told_to_the_end(program: Callable[[], int]) -> int:
    """Run a program and return its exit status; a reader that has gone, such as `head`, is not an error."""
    status = 0
    try:
        status = program()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_unread():  # some other pipe
            raise
        _discard_output()
    return status


def _is_unread() -> bool:
    """Return whether the reader of this process's output has gone."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _discard_output() -> None:
    """Discard all further output, including what Python flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
