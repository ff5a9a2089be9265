"""Print the end of TorchServe's log."""

from __future__ import annotations

import argparse
import os

from marctl.serve.front.supervisor import answering_in
from marctl.serve.make_command import make_command
from marctl.serve.options import add_run, server_in
from marctl.serve.torchserve.instance import LOG, Instance
from marctl.serve.torchserve.readiness import tail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder and the number of lines."""
    add_run(parser)
    parser.add_argument("--lines", type=int, default=40, help="how many lines (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print the last lines; return 1 if there is no log."""
    with server_in(arguments.run) as instance:
        return show(instance, arguments.lines)


def show(instance: Instance, lines: int) -> int:
    """Print the end of the active server's log."""
    log = answering_in(instance).logs / LOG
    if not log.exists():
        print(f"there are no logs yet; start TorchServe with: {make_command('serve', instance.folder)}")
        return 1
    print(tail(log, lines))
    shown = os.path.relpath(log)
    print(f"-- the last {lines} lines of {shown}; to follow it: tail -F {shown}")
    return 0
