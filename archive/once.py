"""Run a command that makes files, unless they lie there already, made of the same inputs.

    once.py --out=FILE... --reads=FILE-OR-FOLDER... -- COMMAND...

Files that were not made here are never written over.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from pathlib import Path

from build_records import NotOurs, Records, digest, digest_of

REMEDY = "move it away"


class NotRead(ValueError):
    """Something that cannot be read to its end."""


def main() -> int:
    """Make the files where one is missing or out of date; return the command's exit status."""
    arguments = _arguments()
    try:
        return make(arguments.out, arguments.reads, arguments.command)
    except (NotOurs, NotRead) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def make(out: list[Path], reads: list[Path], command: list[str]) -> int:
    """Run the command where its output is missing or out of date. Raises NotOurs, NotRead."""
    for path in reads:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device may have no end
            raise NotRead(f"{path} is no file, and no folder; name one")
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, action="append", required=True, help="what the command makes")
    parser.add_argument("--reads", type=Path, action="append", default=[], help="what it makes it of")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
