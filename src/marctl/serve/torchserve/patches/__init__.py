"""The changes to TorchServe 0.12.0, which gets no more fixes: docs/patches.md has their reasons and gains.

Each patch is for one version or one file, and does nothing with any other. UNPATCHED in the environment
names patches to leave out: UNPATCHED=socket,late-torch make serve.
"""

from __future__ import annotations

import os

GREEDY_BATCHES, LATE_TORCH, SOCKET = "greedy-batches", "late-torch", "socket"
NAMES = (GREEDY_BATCHES, LATE_TORCH, SOCKET)
UNPATCHED = "UNPATCHED"


def unknown() -> list[str]:
    """Return the names in UNPATCHED that are not patches."""
    return sorted(_left_out() - set(NAMES))


def is_wanted(name: str) -> bool:
    """Return whether a patch is to be applied."""
    return name not in _left_out()


def _left_out() -> set[str]:
    return {name.strip() for name in os.environ.get(UNPATCHED, "").split(",")} - {""}
