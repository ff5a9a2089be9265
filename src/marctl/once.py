"""Run a command that makes files, unless they exist already, made from the same inputs.

    marctl once --out=FILE... --reads=FILE-OR-FOLDER... -- COMMAND...

It never overwrites files that were not made here.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
from pathlib import Path

from marctl.errors import UserError
from marctl.records import Records, digest, digest_of

REMEDY = "move it away"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files, and the command."""
    parser.add_argument(
        "--out", type=Path, action="append", required=True, help="a file that the command makes"
    )
    parser.add_argument(
        "--reads", type=Path, action="append", default=[], help="a file or folder that it reads"
    )
    parser.add_argument("command", nargs="+", help="the command")


def run(arguments: argparse.Namespace) -> int:
    """Make the files if one is missing or out of date; return the command's exit status."""
    return make(arguments.out, arguments.reads, arguments.command)


def make(out: list[Path], reads: list[Path], command: list[str]) -> int:
    """Run the command if its output is missing or out of date. Raises UserError."""
    for path in reads:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device may have no end
            raise UserError(f"{path} is not a file or folder; name one")
    records = Records()
    with contextlib.ExitStack() as turns:
        for file in out:
            turns.enter_context(records.making(file))
        inputs = digest_of([*command, *(word for path in reads for word in (str(path), digest(path)))])
        if all(records.is_fresh(file, inputs) for file in out):
            return 0
        for file in out:
            records.check_may_write(file, REMEDY)
            file.parent.mkdir(parents=True, exist_ok=True)
        status = subprocess.run(command, check=False).returncode
        if status == 0:
            for file in out:
                records.write(file, digest(file), inputs)
        return status
