"""Stop the server of a folder."""

from __future__ import annotations

import argparse

from marctl.serve.front.slots import twin_of
from marctl.serve.front.supervisor import left_in, stop_all
from marctl.serve.front.supervisor_lock import Supervision
from marctl.serve.options import add_run, server_in
from marctl.serve.served_copies import FOLDER, drop
from marctl.serve.torchserve.instance import STATES, Instance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder."""
    add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Stop TorchServe and everything started with it; it is not an error if nothing runs."""
    with server_in(arguments.run) as instance:
        stopped = stop(instance)
    print("stopped" if stopped else f"nothing to stop: no server runs in {arguments.run}")
    return 0


def stop(instance: Instance) -> bool:
    """Stop what runs in a folder; return whether anything did."""
    # A folder of foreign files is left untouched, unless a server of ours runs there.
    is_foreign = instance.is_foreign
    stopped = (_runs(instance) or (not is_foreign and _was_killed(instance))) and stop_all(instance)
    for folder in () if is_foreign else (instance.folder, twin_of(instance.folder).folder):
        drop(folder / FOLDER)
    return stopped


def _runs(instance: Instance) -> bool:
    """Return whether any part of a server runs here, or is starting or stopping."""
    supervision = Supervision(instance.folder)
    return supervision.is_held or supervision.holder is not None or bool(left_in(instance))


def _was_killed(instance: Instance) -> bool:
    """Return whether a server of this folder ended without deleting its state files."""
    folders = (instance.folder, twin_of(instance.folder).folder)
    return any((folder / name).exists() for folder in folders for name in STATES)
