"""Measure this checkout's servers with bench/serving.py, which is not part of the installed package."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from marctl.errors import UserError

PROGRAM = Path("bench") / "serving.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Accept all arguments unparsed."""
    parser.add_argument("words", nargs=argparse.REMAINDER, help="options of bench.serving and the archive")


def run(arguments: argparse.Namespace) -> int:
    """Run it; return its exit status. Raises UserError if this is not a checkout."""
    if not PROGRAM.is_file():
        raise UserError(f"there is no {PROGRAM} here; run this in a checkout of the project")
    command = [sys.executable, "-m", "bench.serving", *arguments.words]
    return subprocess.run(command, check=False).returncode
