"""Measured tables in hand-written pages, and their circumstances: machine, versions, date."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, the others, numbers, to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def replace_marked(page: Path, name: str, text: str) -> None:
    """Replace the text between the page's marks of this name."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no {begin.strip()} ... {end.strip()}; write both into it")
    page.write_text(before + begin + text + end + after, encoding="utf-8")


def circumstances(*packages: str) -> str:
    """Return one line with the date, the processor, its cores, and the versions of Python and packages."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{today}, {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}."


def processor() -> str:
    """Return the processor's name as Linux reports it, otherwise its architecture."""
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
