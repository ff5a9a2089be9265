"""Print the bill of materials of the image that this runs in, while the image is built."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from marctl.audit import bill
from marctl.audit.audit import TOOLS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive and the environment that serves it."""
    parser.add_argument("archive", type=Path, help="the .mar file in the image")
    parser.add_argument("--environment", type=Path, default=Path("/venv"), help="the environment that serves")


def run(arguments: argparse.Namespace) -> int:
    """Print the bill in CycloneDX format."""
    sys.stdout.write(bill.of_image(arguments.archive, arguments.environment, TOOLS / "cyclonedx-py"))
    return 0
