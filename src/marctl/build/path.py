"""Print the archive that the Makefile's variables select, for its recipes."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive."""
    parser.add_argument("archive")


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    print(arguments.archive)
    return 0
