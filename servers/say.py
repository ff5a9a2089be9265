"""Sentences on this process's output, which may be a file on a full disk: no server ends by that."""

from __future__ import annotations

import contextlib


def say(sentence: str) -> None:
    """Print a sentence at once, if that can be."""
    with contextlib.suppress(OSError):
        print(sentence, flush=True)
