"""How much more memory this process may use, according to Linux."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
MACHINE = Path("/proc/meminfo")
CONTROLLER = "memory"
KILO = 1024
# A group's limit, its usage, and the part of the usage that the kernel frees at once: cached files. In
# version 2 of control groups, and in the older version 1.
SECOND = "memory.max", "memory.current", "inactive_file"
FIRST = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


def memory_left() -> float:
    """Return the free bytes in this process's container and on its machine; inf if neither is known."""
    return min([_on_the_machine(), *map(_in_group, _groups())])


def _on_the_machine() -> float:
    return _number(MACHINE, "MemAvailable:") * KILO


def _groups() -> Iterator[Path]:
    """Yield this process's group and its parents, each of which has its own limit.

    A container sees its own group at the root, whatever its path is outside.
    """
    for line in _text(OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and CONTROLLER not in controllers.split(","):
            continue
        root = GROUPS / CONTROLLER if controllers else GROUPS
        group = root / path.lstrip("/")
        yield from (one for one in (group, *group.parents) if one.is_relative_to(root))


def _in_group(group: Path) -> float:
    for limit, taken, returned in (SECOND, FIRST):
        most, used = (_text(group / name).strip() for name in (limit, taken))
        if most.isdigit() and used.isdigit():  # without a limit it is a word
            files = _number(group / "memory.stat", returned)
            return int(most) - int(used) + (0 if math.isinf(files) else files)
    return math.inf


def _number(table: Path, name: str) -> float:
    """Return the number after a name in a file of names and numbers; inf if the name is missing."""
    rows = (line.split() for line in _text(table).splitlines())
    return next((float(row[1]) for row in rows if row[:1] == [name]), math.inf)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
