"""A measured table within a page that is written by hand."""

from __future__ import annotations

from pathlib import Path


def replace_marked(page: Path, name: str, text: str) -> None:
    """Put text between the page's marks of this name, in the place of what stands there."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no {begin.strip()} ... {end.strip()}; write both into it")
    page.write_text(before + begin + text + end + after, encoding="utf-8")
