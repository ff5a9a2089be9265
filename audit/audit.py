"""Look at what is served: flaws of its packages, our own code, a bill of materials, the archive.

All of it is looked at, whatever the first parts find.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import bill
import own_code
import packages
from accepted import Accepted, BadList
from mar import BadArchive

LOCKS = ("serve", "flask", "dev")
REQUIREMENTS = Path("requirements")
# Beside the Python that runs this.
TOOLS = Path(sys.prefix) / "bin"
FAULTS = (BadArchive, BadList, bill.NoBill, own_code.NotLooked, packages.NotAsked)


class Unsound(RuntimeError):
    """What was looked at has faults; the text has a line for each."""


def main() -> int:
    """Print a line for each part that is well, a sentence for each fault; return 1 where there is one."""
    arguments = _arguments()
    parts: list[Callable[[argparse.Namespace], Iterator[str]]] = [_packages, _code, _bill, _archive]
    faults = 0
    for part in parts:
        try:
            for line in part(arguments):
                print(f"ok    {line}", flush=True)
        except (*FAULTS, Unsound) as error:
            for line in str(error).splitlines():
                print(f"error: {line}", file=sys.stderr, flush=True)
            faults += 1
    return int(faults > 0)


def _packages(arguments: argparse.Namespace) -> Iterator[str]:
    accepted = Accepted.of("packages")
    faults = []
    for name in LOCKS:
        lock = REQUIREMENTS / f"{name}.txt"
        number, found = packages.flaws(TOOLS / "pip-audit", lock, arguments.service, accepted)
        faults += found
        if not found:
            yield f"{lock}: {number} packages, no flaw is known that is not accepted"
    _raise([*faults, *accepted.unused()])


def _code(_: argparse.Namespace) -> Iterator[str]:
    accepted = Accepted.of("code")
    folders = [Path(name) for name in own_code.FOLDERS]
    lines, found = own_code.findings(TOOLS / "bandit", folders, accepted)
    _raise([*found, *accepted.unused()])
    yield f"{', '.join(own_code.FOLDERS)}: {lines:,} lines, bandit finds nothing that is not accepted"


def _bill(arguments: argparse.Namespace) -> Iterator[str]:
    environment, lock = arguments.environment, REQUIREMENTS / "serve.txt"
    yield bill.write(arguments.bill, arguments.archive, environment, lock, TOOLS / "cyclonedx-py")


def _archive(arguments: argparse.Namespace) -> Iterator[str]:
    """Have the archive verified by the environment that can load it: without a key it is not run."""
    archive, key = arguments.archive, arguments.public_key
    command = [arguments.environment / "bin" / "python", "archive/verify.py", archive]
    command += ["--public-key", key] if key else []
    # By no PYTHONPATH: it finds its own modules, and is to see no others.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unsound(done.stderr.strip().replace("error: ", "") or f"{archive} could not be verified")
    yield done.stdout.partition("\n")[0]


def _raise(faults: list[str]) -> None:
    if faults:
        raise Unsound("\n".join(faults))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--environment", type=Path, default=Path(".venv"), help="the one that serves")
    parser.add_argument("--bill", type=Path, required=True, help="where the bill of materials goes")
    parser.add_argument("--service", default="pypi", choices=sorted(packages.SERVICES), help="who knows")
    parser.add_argument("--public-key", type=Path, help="the archive must be signed with this key")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
