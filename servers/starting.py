"""Start this checkout's TorchServe with archives, and return when it is ready."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from pathlib import Path

import served_copies
from instance import EXPLAIN, Instance, NotStarted, Running, Served
from java import find_java
from ports import check_free
from readiness import wait_until_ready
from say import say
from scratch import check_room, check_scratch, remedy, scratch_folder
from served_copies import Terms, unproven
from settings import Settings, is_on

# Seconds for all workers to load; model-config.yaml's startupTimeout is TorchServe's own limit.
READY_TIMEOUT = 120.0
SEALED = "SEALED"
LOOK = "name other folders by RUN=folder and TMPDIR"


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the arguments name, on their port and host, with or without tokens.

    Raises BadSettings.
    """
    settings = Settings.from_file(arguments.config, arguments.port)
    if arguments.tokens:
        settings = settings.with_tokens(arguments.tokens)
    return settings.on_host(arguments.host) if arguments.host else settings


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add the switch of /explanations; the environment's EXPLAIN where it is not given."""
    parser.add_argument("--explain", default=os.environ.get(EXPLAIN, ""), help="1: answer /explanations")


def add_sealed(parser: argparse.ArgumentParser) -> None:
    """Add the switch that lets in what was not sealed; the environment's SEALED where it is not given."""
    parser.add_argument("--sealed", default=os.environ.get(SEALED, ""), help="no: also what was not sealed")


def explains(arguments: argparse.Namespace) -> bool:
    """Tell whether /explanations is answered. Raises BadSettings."""
    return is_on(EXPLAIN, arguments.explain, default=False)


def terms_of(arguments: argparse.Namespace) -> Terms:
    """Return what the arguments say that an archive must fulfil. Raises BadSettings."""
    return Terms(arguments.public_key, must_be_sealed(arguments))


def must_be_sealed(arguments: argparse.Namespace) -> bool:
    """Tell whether an archive that was not sealed is refused. Raises BadSettings."""
    return is_on(SEALED, arguments.sealed, default=True)


def start_and_wait(
    instance: Instance, settings: Settings, archives: list[Path], arguments: argparse.Namespace
) -> Running:
    """Start TorchServe with copies of these archives, return when it is ready, and say so."""
    served = served_copies.take(archives, instance.folder / served_copies.FOLDER, terms_of(arguments))
    return start_served(instance, settings, served, arguments)


def start_served(
    instance: Instance, settings: Settings, served: list[Served], arguments: argparse.Namespace
) -> Running:
    """Start TorchServe with copies that were checked, return when it is ready, and say so."""
    explain = explains(arguments)
    java = find_java()
    check_free(settings.ports)
    check_scratch()
    check_room((one.file for one in served), scratch_folder())
    began = time.monotonic()
    try:
        state = instance.start(settings, java, served, arguments.log_config, explain=explain)
    except OSError as error:  # its settings, logs and temporary files could not be written
        raise NotStarted(f"TorchServe cannot be started: {error}; {remedy(str(error)) or LOOK}") from error
    wait_until_ready(state, instance.logs, READY_TIMEOUT)
    took = time.monotonic() - began
    say(f"serving {names_of(served)} on {state.inference}")
    say(f"  ready after {took:.1f} s, on Java {java.version} of {java.found}")
    if (lacks := unproven(served)) is not None:
        say(f"  {lacks}")
    return state


def names_of(served: list[Served]) -> str:
    """Return the archives' files, for people."""
    return ", ".join(one.archive for one in served)


def picture_of(path: str) -> str:
    """Return a picture to be tried, as a word of a shell: the file, or one of a folder."""
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).glob("[!.]*") if file.is_file())
        # The digit of the documentation, where it is there.
        path = str(next((file for file in files if file.name == "2.png"), files[0] if files else "image.jpg"))
    # curl takes brackets and braces for patterns, unless it is told not to.
    return shlex.quote(path) + (" -g" if set(path) & set("[]{}") else "")
