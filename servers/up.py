"""Serve for others: TorchServe behind its front door, and a process that keeps both up."""

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

import control
import health
import page_files
from deployment import Deployments
from front_door import BadDoor, Opening
from instance import Instance, NotStarted, Running, Served, own
from keeper import (
    CONTROL,
    PATIENCE,
    Keeper,
    answering_in,
    end_what_is_left,
    kept,
    kept_in,
    left_in,
    stop_all,
    write_down,
)
from make_command import make_command
from places import Place, Places, twin_of
from ports import check_free
from process_end import STOPPED, Process
from proxy_watch import ProxyWatch
from readiness import NotReady, tail
from say import say
from scratch import ANOTHER, check_scratch
from served_copies import unproven
from settings import body_limit
from starting import READY_TIMEOUT, must_be_sealed, settings_of, start_served, terms_of
from supervision import FOREGROUND, LOG, Supervision
from tokens import INFERENCE, curl_option

POLL = 0.1  # seconds between two looks at a keeper that starts
STOPPING = "it is stopping"
# Seconds in which a prediction that came through the front door is answered, or asked for again.
ANSWER = 20
LOCKED = "--locked"


def add_arguments(starting: argparse.ArgumentParser) -> None:
    """Add what `up` takes besides the arguments of every start."""
    starting.add_argument(FOREGROUND, action="store_true", help="stay, until SIGTERM")
    starting.add_argument(LOCKED, type=int, help="the number of the open lock file that it is started with")
    starting.add_argument("--door", type=int, default=8000, help="the front door's port")
    starting.add_argument("--inside", type=int, help="TorchServe's own port, where the door takes its place")
    starting.add_argument("--rate", type=int, default=500, help="requests a second from one address")
    starting.add_argument("--connections", type=int, default=200, help="of one address at once")
    starting.add_argument("--tls-certificate", type=Path, help="a PEM file: the door then speaks TLS")
    starting.add_argument("--tls-key", type=Path, help="the certificate's private key, a PEM file")


def up(instance: Instance, arguments: argparse.Namespace) -> int:
    """Start TorchServe behind its front door, and what keeps it up; return when it is ready."""
    if arguments.foreground:
        keep_up(instance, arguments)
    began = time.monotonic()
    supervision = Supervision(instance.folder)
    _take(supervision, instance)
    try:
        keeper = _started(instance, supervision)
    finally:
        supervision.leave()
    try:
        address = _opened(instance, keeper)
    except BaseException:  # Ctrl-C too: nothing half-started is left behind
        stop_all(instance)
        raise
    print(f"serving {', '.join(map(str, arguments.archive))} on {address}, ready after "
          f"{time.monotonic() - began:.1f} s")  # fmt: skip
    if (running := answering_in(instance).running()) is not None and (lacks := unproven(running.served)):
        print(f"  {lacks}")
    model, option = _first_model(instance, arguments.run)
    print(f"  try    curl {address}/predictions/{model} -T {arguments.picture}{option}")
    print(f"  page   {address}/")
    print(f"  ready  curl {address}/health/ready")
    print(f"  logs   {os.path.relpath(instance.folder / LOG)}")
    print(f"  stop   {make_command('stop', instance.folder)}")
    return 0


def keep_up(instance: Instance, arguments: argparse.Namespace) -> NoReturn:
    """Keep TorchServe up behind its front door until SIGTERM or Ctrl-C, which lose no answer.

    Raises Stopped then; whatever else it raises is of the first start.
    """
    settings = settings_of(arguments)
    if arguments.inside is not None:
        settings = settings.behind(arguments.inside)
    if (arguments.tls_certificate is None) != (arguments.tls_key is None):
        raise BadDoor("TLS takes a certificate and its key; give both: make up TLS_CERT=file TLS_KEY=file")
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
        places.begin(arguments.archive, terms_of(arguments))
        seen.models = partial(_served, places)
        keeper = Keeper(places, start, seen)
        deployments = Deployments(places, start, keeper.turn, ANSWER, arguments.public_key)
        at_the_end.callback(places.stop)
        at_the_end.callback(deployments.stop)
        at_the_end.callback(door.refuse, opening)
        watch = ProxyWatch(door, opening, seen)
        at_the_end.callback(watch.stop)
        at_the_end.callback(seen.saw, STOPPING)
        health.serve(seen, opening.health)
        control.serve(opening.scratch / CONTROL, deployments.deploy)
        watch.start()

        def hold_on() -> None:  # whatever somebody deletes of the folder, or all of it
            with contextlib.suppress(OSError):  # no room: the server needs neither of them
                supervision.hold_on()
                if kept_in(instance.folder) != me:
                    own(instance.folder, instance.folder)
                    write_down(instance, me)
            places.answering.hold_on()

        keeper.keep(hold_on)


def deploy(instance: Instance, arguments: argparse.Namespace) -> int:
    """Put other archives in the place of those that `up` serves; no request is lost."""
    state, holder = kept_in(instance.folder), Supervision(instance.folder).holder
    if holder is not None and holder.state == STOPPED:
        remedy = f"to let it go on: kill -CONT {holder.pid}"
        raise control.Refused(f"the supervisor, {holder}, stands still, as by SIGSTOP; {remedy}")
    if state is None or holder is None:
        print("error: nothing is up that it could take the place of; start it with: "
              f"{make_command('up', instance.folder)}", file=sys.stderr)  # fmt: skip
        return 1
    asked = control.Asked(arguments.archive, must_be_sealed(arguments), arguments.public_key)
    control.ask(state.control, asked, print)
    return 0


def _take(supervision: Supervision, instance: Instance) -> None:
    """Take the folder's lock. Raises NotStarted where a supervisor has it, or whoever starts or stops one."""
    try:
        instance.folder.mkdir(parents=True, exist_ok=True)
        if supervision.take() or (supervision.wait(PATIENCE) is None and supervision.take()):
            return  # at once, or after a stop that was under way
    except PermissionError as error:
        raise NotStarted(
            f"cannot write into {instance.folder}: {error.strerror}; "
            "name a folder of your own: make up RUN=folder"
        ) from error
    holder, state = supervision.wait(), kept_in(instance.folder)
    if holder is None:
        raise NotStarted(f"another command starts or stops the server of {instance.folder}; try again")
    place = f" on {state.address}" if state is not None and state.pid == holder.pid else ""
    if state is not None:
        with contextlib.suppress(OSError):
            if health.fault_at(state.health) == STOPPING:
                raise NotStarted(f"{holder} is just stopping the server{place}; try again when it has ended")
    raise NotStarted(
        f"{holder} keeps a server up here already{place}; first: {make_command('stop', instance.folder)}"
    )


def _started(instance: Instance, supervision: Supervision) -> subprocess.Popen[bytes]:
    """Start the supervisor, which inherits the lock that this process has taken."""
    lock = supervision.number
    # Before "--", behind which are files alone.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    words = [*sys.argv[:end], FOREGROUND, LOCKED, str(lock), *sys.argv[end:]]
    with (instance.folder / LOG).open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, pass_fds=[lock],
        )  # fmt: skip
    try:
        if (process := Process.of(keeper.pid)) is not None:
            supervision.name(process)
    except BaseException:  # the disk is full, or Ctrl-C
        keeper.terminate()
        keeper.wait()
        raise
    return keeper


def _recover(instance: Instance) -> None:
    """End what a supervisor that was killed has left running.

    Raises NotStarted where `make serve` started it; NotEnded where it does not end.
    """
    with instance.lock():  # a `make serve` that is under way is done then, and later ones see this process
        left, killed = left_in(instance), kept_in(instance.folder)
        running = instance.running()
        if running is not None and killed is None and len(left) == len(instance.family()):
            raise NotStarted(
                f"TorchServe runs here already, as process {running.pid}; "
                f"first: {make_command('stop', instance.folder)}"
            )
        if killed is not None:
            say(f"the supervisor before this one, process {killed.pid}, has not stopped what it had started")
        if left:
            say(f"ending what is left of it: {', '.join(map(str, left))}")
        end_what_is_left(instance)


def _opened(instance: Instance, keeper: subprocess.Popen[bytes]) -> str:
    """Return the front door's address when what is behind it is ready."""
    end = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < end:
        if keeper.poll() is not None:
            said = (instance.folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
            raise NotStarted(
                said.removeprefix("error: ")
                or f"the supervisor ended with status {keeper.poll()}, and left no word; is there room in "
                f"{instance.folder}? if not, {ANOTHER}"
            )
        if (state := kept_in(instance.folder)) is not None and state.pid == keeper.pid:
            with contextlib.suppress(OSError):
                if health.is_ready(state.health):
                    return state.address
        time.sleep(POLL)
    said = tail(instance.folder / LOG)
    raise NotReady(f"nothing was ready after {READY_TIMEOUT:.0f} seconds:\n{said}")


def _served(places: Places) -> Iterable[Served]:
    """Return what the place that answers serves; nothing while it is started again."""
    running = places.answering.instance.running()
    return running.served if running is not None else ()


def _first_model(instance: Instance, run: Path) -> tuple[str, str]:
    """Return the name of a model that is served, and what curl takes besides to be answered by it."""
    if (running := answering_in(instance).running()) is None:
        return "MODEL", ""
    return running.served[0].model, curl_option(INFERENCE, run) if running.keys else ""
