"""Replace the archives that `marctl up` serves, without a gap.

The new version starts next to the old one and gets traffic only after it has passed its checks.
"""

from __future__ import annotations

import argparse

from marctl.errors import UserError
from marctl.serve.front import control
from marctl.serve.front.supervisor import kept_in
from marctl.serve.front.supervisor_lock import Supervision
from marctl.serve.make_command import make_command
from marctl.serve.options import add_archives, add_run, add_terms, archives_of, must_be_sealed, server_in
from marctl.serve.processes import STOPPED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, and the archives."""
    add_run(parser)
    add_terms(parser)
    add_archives(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replace the archives that `up` serves; no request is lost."""
    archives = archives_of(arguments)
    with server_in(arguments.run) as instance:
        state, holder = kept_in(instance.folder), Supervision(instance.folder).holder
        if holder is not None and holder.state == STOPPED:
            remedy = f"to resume it: kill -CONT {holder.pid}"
            raise UserError(f"the supervisor, {holder}, is suspended, as by SIGSTOP; {remedy}")
        if state is None or holder is None:
            start = make_command("up", instance.folder)
            raise UserError(f"there is no server to deploy to; start one with: {start}")
        asked = control.Asked(archives, must_be_sealed(arguments), arguments.public_key)
        control.ask(state.control, asked, print)
    return 0
