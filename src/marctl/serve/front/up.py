"""Serve other machines: TorchServe behind a reverse proxy, and a supervisor that restarts both."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NoReturn

from marctl.errors import UserError
from marctl.extras import need
from marctl.output import say
from marctl.serve.front import control, health
from marctl.serve.front.deployment import Deployments
from marctl.serve.front.nginx import Opening
from marctl.serve.front.proxy_watch import ProxyWatch
from marctl.serve.front.slots import Place, Places, twin_of
from marctl.serve.front.supervisor import (
    CONTROL,
    PATIENCE,
    Supervisor,
    answering_in,
    end_what_is_left,
    kept,
    kept_in,
    left_in,
    stop_all,
    write_down,
)
from marctl.serve.front.supervisor_lock import FOREGROUND, LOG, Supervision
from marctl.serve.make_command import make_command
from marctl.serve.options import add_serving, archives_of, image_of, server_in, settings_of, terms_of
from marctl.serve.page import files as page_files
from marctl.serve.ports import check_free
from marctl.serve.processes import Process
from marctl.serve.scratch import ANOTHER, check_scratch
from marctl.serve.served_copies import unproven
from marctl.serve.torchserve.instance import Instance, Running, Served, own
from marctl.serve.torchserve.readiness import NotReady, tail
from marctl.serve.torchserve.settings import body_limit
from marctl.serve.torchserve.starting import READY_TIMEOUT, start_served
from marctl.serve.torchserve.tokens import INFERENCE, curl_option
from marctl.signals import Stopped

POLL = 0.1  # seconds between two checks of a starting supervisor
STOPPING = "it is stopping"
# Seconds for a prediction behind the reverse proxy, before it is retried.
ANSWER = 20
LOCKED = "--locked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for TorchServe and for the reverse proxy."""
    add_serving(parser)
    parser.add_argument(FOREGROUND, action="store_true", help="serve in the foreground until SIGTERM")
    parser.add_argument(LOCKED, type=int, help=argparse.SUPPRESS)  # the lock's file descriptor
    parser.add_argument(
        "--door", type=int, default=8000, help="the reverse proxy's port (default: %(default)s)"
    )
    parser.add_argument("--inside", type=int, help="TorchServe's own port, if nginx takes over its usual one")
    parser.add_argument("--rate", type=int, default=500, help="requests per second from one address")
    parser.add_argument(
        "--connections", type=int, default=200, help="simultaneous connections from one address"
    )
    parser.add_argument("--tls-certificate", type=Path, help="a PEM file; turns on TLS")
    parser.add_argument("--tls-key", type=Path, help="the certificate's private key, a PEM file")


def run(arguments: argparse.Namespace) -> int:
    """Serve; return the exit status. In the foreground, being stopped is success."""
    archives = archives_of(arguments)
    need("ts")
    with server_in(arguments.run) as instance:
        if arguments.locked is None:  # else the parent process has checked the folder
            instance.claim()
        if not arguments.foreground:
            return up(instance, archives, arguments)
        try:
            keep_up(instance, archives, arguments)
        except Stopped as stopped:
            print(f"stopped by {stopped}")
            return 0


def up(instance: Instance, archives: list[Path], arguments: argparse.Namespace) -> int:
    """Start the supervisor, with TorchServe behind a reverse proxy; return when all is ready."""
    began = time.monotonic()
    supervision = Supervision(instance.folder)
    _take(supervision, instance)
    try:
        supervisor = _started(instance, supervision, arguments.words)
    finally:
        supervision.leave()
    try:
        address = _opened(instance, supervisor)
    except BaseException:  # Ctrl-C too: nothing half-started is left behind
        stop_all(instance)
        raise
    print(f"serving {', '.join(map(str, archives))} on {address}, ready after "
          f"{time.monotonic() - began:.1f} s")  # fmt: skip
    if (running := answering_in(instance).running()) is not None and (lacks := unproven(running.served)):
        print(f"  {lacks}")
    model, option = _first_model(instance, arguments.run)
    print(f"  try    curl {address}/predictions/{model} -T {image_of(arguments.image)}{option}")
    print(f"  page   {address}/")
    print(f"  ready  curl {address}/health/ready")
    print(f"  logs   {os.path.relpath(instance.folder / LOG)}")
    print(f"  stop   {make_command('stop', instance.folder)}")
    return 0


def keep_up(instance: Instance, archives: list[Path], arguments: argparse.Namespace) -> NoReturn:
    """Keep TorchServe running behind its reverse proxy until SIGTERM or Ctrl-C, which lose no answer.

    Raises Stopped then; any other exception comes from the first start.
    """
    settings = settings_of(arguments)
    if arguments.inside is not None:
        settings = settings.behind(arguments.inside)
    if (arguments.tls_certificate is None) != (arguments.tls_key is None):
        raise UserError("TLS needs a certificate and its key; give both: make up TLS_CERT=file TLS_KEY=file")
    supervision = Supervision(instance.folder)
    if arguments.locked is not None:
        supervision.inherit(arguments.locked)
    else:
        _take(supervision, instance)
    supervision.name_me()
    _recover(instance)
    check_free([arguments.door])
    check_scratch()
    twin = settings.beside(arguments.door)
    seen = health.Health()

    def opening_in(scratch: Path) -> Opening:
        return Opening(
            arguments.door, settings.inference, twin.inference, scratch, body_limit(arguments.config), ANSWER,
            arguments.rate, arguments.connections, arguments.tls_certificate, arguments.tls_key,
        )  # fmt: skip

    def start(place: Place) -> Running:
        with place.instance.lock():
            place.hold_on()
            place.instance.stop()
            running = start_served(place.instance, place.settings, place.served, arguments)
            place.started(running)
            return running

    with kept(instance, opening_in) as (opening, door, me), contextlib.ExitStack() as at_the_end:
        places = Places(
            Place(instance, settings), Place(twin_of(instance.folder), twin), opening.switch,
            told=lambda served: page_files.tell(opening.scratch, (one.file for one in served)),
        )  # fmt: skip
        places.begin(archives, terms_of(arguments))
        seen.models = partial(_served, places)
        supervisor = Supervisor(places, start, seen)
        deployments = Deployments(places, start, supervisor.turn, ANSWER, arguments.public_key)
        at_the_end.callback(places.stop)
        at_the_end.callback(deployments.stop)
        at_the_end.callback(door.refuse, opening)
        watch = ProxyWatch(door, opening, seen)
        at_the_end.callback(watch.stop)
        at_the_end.callback(seen.saw, STOPPING)
        health.serve(seen, opening.health)
        control.serve(opening.scratch / CONTROL, deployments.deploy)
        watch.start()

        def hold_on() -> None:  # restore whatever was deleted from the folder, or the whole folder
            with contextlib.suppress(OSError):  # no disk space: the server runs without these files
                supervision.hold_on()
                if kept_in(instance.folder) != me:
                    own(instance.folder, instance.folder)
                    write_down(instance, me)
            places.answering.hold_on()

        supervisor.keep(hold_on)


def _take(supervision: Supervision, instance: Instance) -> None:
    """Take the folder's lock. Raises UserError if a supervisor or another command holds it."""
    try:
        instance.folder.mkdir(parents=True, exist_ok=True)
        if supervision.take() or (supervision.wait(PATIENCE) is None and supervision.take()):
            return  # at once, or after a stop in progress
    except PermissionError as error:
        raise UserError(
            f"cannot write into {instance.folder}: {error.strerror}; "
            "name a folder of your own: make up RUN=folder"
        ) from error
    holder, state = supervision.wait(), kept_in(instance.folder)
    if holder is None:
        raise UserError(f"another command is starting or stopping the server in {instance.folder}; try again")
    place = f" on {state.address}" if state is not None and state.pid == holder.pid else ""
    if state is not None:
        with contextlib.suppress(OSError):
            if health.fault_at(state.health) == STOPPING:
                raise UserError(f"{holder} is stopping the server{place}; try again when it has ended")
    stop_it = make_command("stop", instance.folder)
    raise UserError(f"{holder} already supervises a server here{place}; stop it first: {stop_it}")


def _started(instance: Instance, supervision: Supervision, words: list[str]) -> subprocess.Popen[bytes]:
    """Start the supervisor, which inherits the lock from this process."""
    lock = supervision.number
    # Before "--": only files follow it.
    end = words.index("--") if "--" in words else len(words)
    words = [*words[:end], FOREGROUND, LOCKED, str(lock), *words[end:]]
    with (instance.folder / LOG).open("wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "marctl", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, pass_fds=[lock],
        )  # fmt: skip
    try:
        if (process := Process.of(supervisor.pid)) is not None:
            supervision.name(process)
    except BaseException:  # the disk is full, or Ctrl-C
        supervisor.terminate()
        supervisor.wait()
        raise
    return supervisor


def _recover(instance: Instance) -> None:
    """End what a killed supervisor has left running.

    Raises UserError if `make serve` started it, and NotEnded if it does not end.
    """
    with instance.lock():  # waits for a running `make serve`; later ones see this process
        left, killed = left_in(instance), kept_in(instance.folder)
        running = instance.running()
        if running is not None and killed is None and len(left) == len(instance.family()):
            raise UserError(
                f"TorchServe is already running here, as process {running.pid}; "
                f"stop it first: {make_command('stop', instance.folder)}"
            )
        if killed is not None:
            say(f"the previous supervisor, process {killed.pid}, ended without stopping what it had started")
        if left:
            say(f"ending what is left of it: {', '.join(map(str, left))}")
        end_what_is_left(instance)


def _opened(instance: Instance, supervisor: subprocess.Popen[bytes]) -> str:
    """Wait until the server is ready; return the reverse proxy's address."""
    end = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < end:
        if supervisor.poll() is not None:
            printed = (instance.folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
            raise UserError(
                printed.removeprefix("error: ")
                or f"the supervisor ended with status {supervisor.poll()} and printed nothing; "
                f"free space in {instance.folder}, or {ANOTHER}"
            )
        if (state := kept_in(instance.folder)) is not None and state.pid == supervisor.pid:
            with contextlib.suppress(OSError):
                if health.is_ready(state.health):
                    return state.address
        time.sleep(POLL)
    log = tail(instance.folder / LOG)
    raise NotReady(f"the server was not ready after {READY_TIMEOUT:.0f} seconds:\n{log}")


def _served(places: Places) -> Iterable[Served]:
    """Return what the active slot serves; nothing during a restart."""
    running = places.answering.instance.running()
    return running.served if running is not None else ()


def _first_model(instance: Instance, run: Path) -> tuple[str, str]:
    """Return the name of a served model, and the curl option with its token, if it needs one."""
    if (running := answering_in(instance).running()) is None:
        return "MODEL", ""
    return running.served[0].model, curl_option(INFERENCE, run) if running.keys else ""
