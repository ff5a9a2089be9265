"""A folder of images: which files it contains, and their answers in a table."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from marctl.predict.table import BadTable, Row, Table
from marctl.printable import printable

SHOWN = 20  # broken files to list; the output has all of them
MOST = 5000  # characters of a file's name
DIGITS = 12  # of the archive's SHA-256, in each row
RECURSIVE = "**"  # the part of a glob pattern that matches any folders


@dataclass(frozen=True)
class Images:
    """The files of a folder or pattern, in order, and why some folders could not be searched."""

    files: list[str]
    unsearched: dict[str, str]


def find_images(pattern: str, out: Path) -> Images:
    """Find the files of a folder and its subfolders, or those that match a glob pattern.

    A file or folder with exactly that name takes precedence: a name may contain brackets. Raises BadTable if
    no file is found.
    """
    unsearched: dict[str, str] = {}
    if os.path.isfile(pattern):  # noqa: PTH113 pathlib's raises PermissionError
        found = [pattern]
    elif os.path.isdir(pattern):  # noqa: PTH112
        found = list(_below(pattern, unsearched))
    else:
        _note_unsearchable(pattern, unsearched)
        found = _glob(pattern)
    # The output and its temporary files may be among the images.
    written = os.path.realpath(out)  # also for a loop of links
    files = sorted(
        {
            str(Path(name))
            for name in found
            if os.path.isfile(name) and not os.path.realpath(name).startswith(written)  # noqa: PTH113
        }
    )
    if not files:
        for folder, why in unsearched.items():
            raise BadTable(f"IMAGES={pattern} matches no readable file: {folder}: {why}; grant access to it")
        raise BadTable(f"IMAGES={pattern} matches no file; give a folder, or a pattern in quotes")
    return Images(files, unsearched)


def _below(top: str, unsearched: dict[str, str]) -> Iterator[str]:
    """Yield the names in a folder and its subfolders; links to folders are not followed."""
    listed = os.walk(top, onerror=lambda error: unsearched.update({error.filename: _reason(error)}))
    for folder, subfolders, names in listed:
        if _is_searchable(folder, unsearched, listing=False):
            yield from (f"{folder}/{name}" for name in names)
        else:  # it can be listed, but its files cannot be opened
            subfolders.clear()


def _note_unsearchable(pattern: str, unsearched: dict[str, str]) -> None:
    """Record the folders on the way of a glob pattern that cannot be searched: glob skips them."""
    parts = Path(pattern).parts
    for count in range(len(parts) + (RECURSIVE in parts[-1:])):
        through, following = parts[:count], "".join(parts[count : count + 1])
        listing = RECURSIVE in through or glob.has_magic(following)
        for folder in _glob(str(Path(*through))):
            if os.path.isdir(folder):  # noqa: PTH112
                _is_searchable(folder, unsearched, listing=listing)


def _is_searchable(folder: str, unsearched: dict[str, str], *, listing: bool) -> bool:
    """Return whether a folder can be entered and, with `listing`, listed; record why not."""
    try:
        os.stat(f"{folder}/.")  # noqa: PTH116 pathlib leaves out the dot
        if listing:
            os.scandir(folder).close()
    except OSError as error:
        unsearched[str(Path(folder))] = _reason(error)
        return False
    return True


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _glob(pattern: str) -> list[str]:
    # Not Path.glob, which does not take absolute patterns.
    return glob.glob(pattern, recursive=True)  # noqa: PTH207


def write_answers(images: Images, table: Table, answered: Callable[[list[str]], Iterator[list[Row]]]) -> int:
    """Write rows for the images that the table does not have yet, and for folders that could not be searched.

    Return the exit status: 1 if a row has an error.
    """
    todo = [image for image in images.files if image not in table.done]
    broken = []
    with tqdm(total=len(images.files), initial=len(images.files) - len(todo), unit="image") as bar:
        for rows in answered(todo):
            table.write(rows)
            bar.update(len(rows))
            broken += [row for row in rows if row.error]
    answers = len(todo) - len(broken)
    closed = [
        Row(folder, "", f"the folder cannot be searched: {why}", table.archive)
        for folder, why in sorted(images.unsearched.items())
    ]
    table.write(closed)
    broken += closed
    table.finish()
    counts = f"{answers:,} answered, {len(todo) - answers:,} broken, {len(table.done):,} done before"
    print(counts + (f"; folders that could not be searched: {len(closed):,}" if closed else ""))
    out = printable(str(table.out), MOST)
    print(f"wrote {out}")
    for row in broken[:SHOWN]:
        print(f"  {printable(row.image, MOST)}: {printable(row.error)}", file=sys.stderr)
    if len(broken) > SHOWN:
        print(f"  ... and {len(broken) - SHOWN:,} more, in {out}", file=sys.stderr)
    return int(bool(broken))
