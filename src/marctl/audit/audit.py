"""Check dependencies for known vulnerabilities, our own code and the archive; write the bill of materials.

Every part runs, even if an earlier one finds something.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from marctl.audit import bill, own_code, packages
from marctl.audit.accepted import Accepted
from marctl.errors import UserError

LOCKS = ("serve", "cuda", "flask", "dev")
REQUIREMENTS = Path("requirements")
# Beside the Python that runs this.
TOOLS = Path(sys.prefix) / "bin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive, the environment that serves it, and the vulnerability service."""
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--environment", type=Path, default=Path(".venv"), help="the environment that serves")
    parser.add_argument("--bill", type=Path, help="the file for the bill of materials")
    services = sorted(packages.SERVICES)
    parser.add_argument("--service", default="pypi", choices=services, help="the vulnerability service")
    parser.add_argument("--public-key", type=Path, help="the archive must be signed with this key")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each part without faults, a sentence for each fault; return 1 if there is one."""
    parts: list[Callable[[argparse.Namespace], Iterator[str]]] = [_packages, _code, _bill, _archive]
    faults = 0
    for part in parts:
        try:
            for line in part(arguments):
                print(f"ok    {line}", flush=True)
        except UserError as error:
            for line in str(error).splitlines():
                print(f"error: {line}", file=sys.stderr, flush=True)
            faults += 1
    return int(faults > 0)


def _packages(arguments: argparse.Namespace) -> Iterator[str]:
    accepted = Accepted.of("packages")
    faults = []
    for name in LOCKS:
        lock = REQUIREMENTS / f"{name}.txt"
        number, found = packages.vulnerabilities(TOOLS / "pip-audit", lock, arguments.service, accepted)
        faults += found
        if not found:
            yield f"{lock}: {number} packages, no known vulnerabilities, apart from accepted ones"
    _raise([*faults, *accepted.unused()])


def _code(_: argparse.Namespace) -> Iterator[str]:
    accepted = Accepted.of("code")
    folders = [Path(name) for name in own_code.FOLDERS]
    lines, found = own_code.findings(TOOLS / "bandit", folders, accepted)
    _raise([*found, *accepted.unused()])
    yield f"{', '.join(own_code.FOLDERS)}: {lines:,} lines, bandit finds nothing, apart from what is accepted"


def _bill(arguments: argparse.Namespace) -> Iterator[str]:
    environment, lock = arguments.environment, REQUIREMENTS / "serve.txt"
    file = arguments.bill or Path("exported") / f"{arguments.archive.stem}.cdx.json"
    yield bill.write(file, arguments.archive, environment, lock, TOOLS / "cyclonedx-py")


def _archive(arguments: argparse.Namespace) -> Iterator[str]:
    """Verify the archive in the environment that can load it; without a key it is not run."""
    archive, key = arguments.archive, arguments.public_key
    command = [arguments.environment / "bin" / "python", "-P", "-m", "marctl", "verify", archive]
    command += ["--public-key", key] if key else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(done.stderr.strip().replace("error: ", "") or f"{archive} could not be verified")
    yield done.stdout.partition("\n")[0]


def _raise(faults: list[str]) -> None:
    if faults:
        raise UserError("\n".join(faults))
