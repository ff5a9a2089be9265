"""Start TorchServe with archives, and wait until it is ready."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from marctl.errors import UserError
from marctl.output import say
from marctl.serve import served_copies
from marctl.serve.options import explains, terms_of
from marctl.serve.ports import check_free
from marctl.serve.scratch import check_room, check_scratch, remedy, scratch_folder
from marctl.serve.served_copies import unproven
from marctl.serve.torchserve.instance import Instance, Running, Served
from marctl.serve.torchserve.java import find_java
from marctl.serve.torchserve.readiness import wait_until_ready
from marctl.serve.torchserve.settings import Settings

# Seconds for all workers to load; model-config.yaml's startupTimeout is TorchServe's own limit.
READY_TIMEOUT = 120.0
OTHER_FOLDERS = "set RUN and TMPDIR to other folders"


def start_and_wait(
    instance: Instance, settings: Settings, archives: list[Path], arguments: argparse.Namespace
) -> Running:
    """Start TorchServe with copies of these archives, wait until it is ready, and print its address."""
    served = served_copies.take(archives, instance.folder / served_copies.FOLDER, terms_of(arguments))
    return start_served(instance, settings, served, arguments)


def start_served(
    instance: Instance, settings: Settings, served: list[Served], arguments: argparse.Namespace
) -> Running:
    """Start TorchServe with checked copies, wait until it is ready, and print its address."""
    explain = explains(arguments)
    java = find_java()
    check_free(settings.ports)
    check_scratch()
    check_room((one.file for one in served), scratch_folder())
    began = time.monotonic()
    try:
        state = instance.start(settings, java, served, arguments.log_config, explain=explain)
    except OSError as error:  # its settings, logs and temporary files could not be written
        raise UserError(
            f"TorchServe cannot be started: {error}; {remedy(str(error)) or OTHER_FOLDERS}"
        ) from error
    wait_until_ready(state, instance.logs, READY_TIMEOUT)
    took = time.monotonic() - began
    say(f"serving {names_of(served)} on {state.inference}")
    say(f"  ready after {took:.1f} s, on Java {java.version} of {java.found}")
    if (lacks := unproven(served)) is not None:
        say(f"  {lacks}")
    return state


def names_of(served: list[Served]) -> str:
    """Return the archives' paths, for display."""
    return ", ".join(one.archive for one in served)
