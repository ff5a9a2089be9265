"""Print a token that the server of a folder accepts."""

from __future__ import annotations

import argparse

from marctl.errors import UserError
from marctl.serve.front.supervisor import answering_in
from marctl.serve.make_command import make_command
from marctl.serve.options import add_run, server_in
from marctl.serve.torchserve.instance import Instance
from marctl.serve.torchserve.tokens import INFERENCE, KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder and the kind of token."""
    add_run(parser)
    parser.add_argument("--kind", default=INFERENCE, help=" or ".join(KINDS))


def run(arguments: argparse.Namespace) -> int:
    """Print a token that the server accepts, a new one if the old one has expired."""
    with server_in(arguments.run) as instance:
        print(token_of(instance, arguments.kind))
    return 0


def token_of(instance: Instance, kind: str) -> str:
    """Return a valid token of a kind. Raises UserError if there is none."""
    if kind not in KINDS:
        raise UserError(f"KIND={kind} is not known; use KIND={' or KIND='.join(KINDS)}")
    state = answering_in(instance).running()
    if state is None:
        start_it = make_command("serve", instance.folder, "TOKENS=on")
        raise UserError(f"no server is running; start one with: {start_it}")
    if state.keys is None:
        start_it = make_command("stop serve", instance.folder, "TOKENS=on")
        raise UserError(f"this server does not use tokens; to turn them on: {start_it}")
    found = state.key_file.token(kind)
    if found is None:
        raise UserError(f"TorchServe has not written its tokens to {state.keys} yet; try again")
    return found
