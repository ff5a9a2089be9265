"""Examine an archive, and run it if its signature is trusted or the user asks for it.

To examine it is to check its members against its own records, without running anything. That finds damage.
Whoever made the archive also wrote the records: only a signature shows who that was.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from marctl.archive.claims import claims
from marctl.archive.mar import SUFFIX
from marctl.errors import UserError
from marctl.printable import printable, wrapped
from marctl.sandbox import sandbox
from marctl.verify.examination import Examined, examined

MOST = 2000  # characters of a fault


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive, and whether to run it."""
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--public-key", type=Path, help="require a signature by this key, then run it")
    parser.add_argument("--run", action="store_true", help="run it without a signature, in isolation")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found, or a sentence for each fault; return 1 if there is one."""
    archive, key = printable(str(arguments.archive)), arguments.public_key
    runs = arguments.run or key is not None
    if runs and (fault := sandbox.isolation_fault()) is not None:
        print(
            "note: its code runs with limits, but can reach your files and the network: this system does not "
            f"allow user namespaces ({printable(fault)})",
            file=sys.stderr,
        )
    try:
        with examined(arguments.archive, key, run=runs) as found:
            for fault in found.faults:
                print(f"error: {archive}: {printable(fault, MOST)}", file=sys.stderr)
            if found.faults:
                return 1
            lines = list(described(found, archive, key))
    except (UserError, OSError) as error:
        text = printable(str(error), MOST)
        print(f"error: {text}" if archive in text else f"error: {archive}: {text}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def faults(archive: Path, public_key: Path | None = None, *, run: bool = False) -> list[str]:
    """Return a sentence for each fault of an archive; an empty list if there is none."""
    try:
        with examined(archive, public_key, run=run) as found:
            return [printable(fault, MOST) for fault in found.faults]
    except UserError as error:
        return [str(error)]


def described(found: Examined, archive: str, key: Path | None) -> Iterator[str]:
    """Yield what was found in an archive without faults, and what it says about itself."""
    count = len(json.loads(found.records[GOLDEN_ANSWERS])["pictures"])
    answered = f"{count} golden images answered as recorded"
    python = f"{sum(name.endswith('.py') for name in found.names)} Python files"
    programs = [python, *(f"{printable(name)} ({kind})" for name, kind in found.programs.items())]
    signer = f"by the key in {printable(str(key))}"
    if key is not None:
        yield f"{archive} is signed {signer}; {answered}"
    elif found.ran:
        yield f"{archive} was examined and run in isolation: {answered}"
    else:
        yield f"{archive} was examined, not run: its members match the records inside it"
    yield f"  signed    {signer if key else _unsigned(found)}"
    with found.copy.open("rb") as file:
        yield f"  sha256    {hashlib.file_digest(file, 'sha256').hexdigest()}"
    yield f"  members   {len(found.names)}, all as recorded inside"
    yield from wrapped("  programs  ", f"{', '.join(programs)}; they run when it is served")
    yield f"  golden    {count} images, {_tried(found, key)}"
    yield f"  claims    {'what its signer says' if key else 'what it says about itself, without proof'}:"
    for name, text in claims(found.records, found.config):
        # Wrapped here and not by the terminal, so that no part of a claim looks like a line of this program.
        yield from wrapped(f"    {name:<10}", text)


def _unsigned(found: Examined) -> str:
    if found.copy.with_name(found.copy.name + SUFFIX).exists():
        return "there is a signature, which was not checked: PUBLIC_KEY=public.pem"
    return "no; whoever made it also wrote its records"


def _tried(found: Examined, key: Path | None) -> str:
    if not found.ran:
        return "not checked: RUN=1 runs the archive on them"
    alone = "; the class was not run: torch is not installed" if _class_was_left_out(found) else ""
    return "answered as recorded" + alone + ("" if key else "; malicious code can do that, too")


def _class_was_left_out(found: Examined) -> bool:
    return bool(found.model.get("modelFile")) and importlib.util.find_spec("torch") is None
