"""Start TorchServe with archives, and return when it is ready.

With --foreground it serves until SIGTERM or Ctrl-C, as a container's first process should.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from marctl.errors import UserError
from marctl.extras import need
from marctl.serve.front.supervisor import PATIENCE, answering_in, end_what_is_left
from marctl.serve.front.supervisor_lock import FOREGROUND, Supervision
from marctl.serve.make_command import make_command
from marctl.serve.options import add_serving, archives_of, image_of, server_in, settings_of
from marctl.serve.served_copies import FOLDER, drop
from marctl.serve.status import report
from marctl.serve.torchserve.foreground import watch
from marctl.serve.torchserve.instance import LOG, Instance, Running
from marctl.serve.torchserve.settings import Settings
from marctl.serve.torchserve.starting import start_and_wait
from marctl.serve.torchserve.tokens import INFERENCE, MANAGEMENT, curl_option
from marctl.signals import Stopped

# Seconds for TorchServe to end in the foreground: it takes two, and Docker kills after ten.
FOREGROUND_GRACE = 4.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for starting the server."""
    add_serving(parser)
    parser.add_argument(FOREGROUND, action="store_true", help="serve in the foreground until SIGTERM")


def run(arguments: argparse.Namespace) -> int:
    """Serve; return the exit status. In the foreground, being stopped is success."""
    archives = archives_of(arguments)
    need("ts")
    with server_in(arguments.run) as instance:
        instance.claim()
        if not arguments.foreground:
            return start(instance, archives, arguments)
        try:
            serve_until_stopped(instance, archives, arguments)
        except Stopped as stopped:
            print(f"stopped by {stopped}")
            return 0


def start(instance: Instance, archives: list[Path], arguments: argparse.Namespace) -> int:
    """Start TorchServe and return when it is ready; if it is already running, say so."""
    with instance.lock():
        settings = settings_of(arguments)
        _check_unsupervised(instance)
        if (running := answering_in(instance).running()) is not None:
            return _already(running, settings, instance, archives)
        try:
            end_what_is_left(instance)
            state = start_and_wait(instance, settings, archives, arguments)
        except BaseException:  # Ctrl-C too: nothing half-started is left behind
            instance.stop()
            drop(instance.folder / FOLDER)
            raise
    predict, manage = (
        curl_option(kind, arguments.run) if state.keys else "" for kind in (INFERENCE, MANAGEMENT)
    )
    image = image_of(arguments.image)
    print(f"  try   curl {state.inference}/predictions/{state.served[0].model} -T {image}{predict}")
    print(f"  list  curl {state.management}/models{manage}")
    print(f"  logs  {os.path.relpath(instance.logs / LOG)}")
    print(f"  stop  {make_command('stop', instance.folder)}")
    return 0


def serve_until_stopped(instance: Instance, archives: list[Path], arguments: argparse.Namespace) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C.

    Raises Stopped then, or UserError if TorchServe ends by itself; either way nothing is left running.
    """
    settings = settings_of(arguments)
    with contextlib.ExitStack() as at_the_end:
        with instance.lock():
            _check_unsupervised(instance)
            if (running := answering_in(instance).running()) is not None:
                stop_it = make_command("stop", instance.folder)
                raise UserError(
                    f"TorchServe is already running here, as process {running.pid}; stop it first: {stop_it}"
                )
            end_what_is_left(instance)
            at_the_end.callback(drop, instance.folder / FOLDER)
            at_the_end.callback(instance.stop, FOREGROUND_GRACE)
            state = start_and_wait(instance, settings, archives, arguments)
        watch(state, instance.logs / LOG)


def _check_unsupervised(instance: Instance) -> None:
    """Raise UserError if a server started by `make up` is running or starting in the folder."""
    supervision = Supervision(instance.folder)
    if (holder := supervision.wait(PATIENCE)) is not None:  # waits for a stop in progress
        if answering_in(instance).running() is None:
            raise UserError(
                f"{holder} supervises a server here, which is down right now; "
                f"stop it first: {make_command('stop', instance.folder)}"
            )
    elif supervision.is_held:
        raise UserError(f"another command is starting or stopping the server in {instance.folder}; try again")


def _already(running: Running, settings: Settings, instance: Instance, archives: list[Path]) -> int:
    """Report what is running; return 1 if it is not what was asked for."""
    unready = report(instance)
    first = f"stop the running server first: {make_command('stop', instance.folder)}"
    asked = [str(archive) for archive in archives]
    if running.inference != settings.inference or [one.archive for one in running.served] != asked:
        print(f"not started: {', '.join(asked)} on {settings.inference}; {first}", file=sys.stderr)
        return 1
    if settings.tokens != (running.keys is not None):
        wanted = "with" if settings.tokens else "without"
        print(f"not started {wanted} tokens; {first}", file=sys.stderr)
        return 1
    return unready
