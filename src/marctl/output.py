"""Sentences on this process's output, which may be a file on a full disk: no server ends by that."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable


def say(sentence: str) -> None:
    """Print a sentence at once, if that can be."""
    try:
        print(sentence, flush=True)
    except BrokenPipeError:
        _say_no_more()
    except OSError:  # a full disk
        pass


def told_to_the_end(program: Callable[[], int]) -> int:
    """Run a program, and return its exit status; it is no fault where who reads, as `head`, has gone."""
    status = 0
    try:
        status = program()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_unread():  # it was another pipe
            raise
        _say_no_more()
    return status


def _is_unread() -> bool:
    """Return whether nobody reads this process's output any more."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _say_no_more() -> None:
    """Let what is printed from here on go nowhere: Python prints what is left when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
