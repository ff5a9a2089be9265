"""A folder of pictures: which files it has, and their answers in a table."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from printable import printable
from table import BadTable, Row, Table

SHOWN = 20  # broken files that are listed; all of them stand in the output
MOST = 5000  # characters of a file's name
DIGITS = 12  # of the archive's SHA-256 that stand in each row


def find_images(pattern: str, out: Path) -> list[str]:
    """Return the files of a folder, its subfolders included, or those that match a glob, in order."""
    folder = Path(pattern)
    below = folder.rglob("*") if folder.is_dir() else ()
    # Not Path.glob, which takes no absolute patterns.
    found = [*below, *map(Path, glob.glob(pattern, recursive=True))]  # noqa: PTH207
    # The answers may lie among the pictures, with what belongs to them.
    written = os.path.realpath(out)  # of a loop of links, too
    files = sorted(
        {str(path) for path in found if path.is_file() and not str(path.resolve()).startswith(written)}
    )
    if not files:
        raise BadTable(f"IMAGES={pattern} names no file; give a folder, or a pattern in quotes")
    return files


def write_answers(
    images: list[str], table: Table, answered: Callable[[list[str]], Iterator[list[Row]]]
) -> int:
    """Write the rows of what the table does not hold yet; return the exit status, 1 where some are broken."""
    todo = [image for image in images if image not in table.done]
    broken = []
    with tqdm(total=len(images), initial=len(images) - len(todo), unit="picture") as bar:
        for rows in answered(todo):
            table.write(rows)
            bar.update(len(rows))
            broken += [row for row in rows if row.error]
    table.finish()
    print(f"{len(todo) - len(broken):,} answered, {len(broken):,} broken, {len(table.done):,} done before")
    out = printable(str(table.out), MOST)
    print(f"wrote {out}")
    for row in broken[:SHOWN]:
        print(f"  {printable(row.image, MOST)}: {printable(row.error)}", file=sys.stderr)
    if len(broken) > SHOWN:
        print(f"  ... and {len(broken) - SHOWN:,} more, in {out}", file=sys.stderr)
    return int(bool(broken))
