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
from foreground import stop_on_signals
from front_door import DRAIN, BadDoor, Opening
from instance import STOP_GRACE, Instance, NotStarted, Running, Served
from keeper import CONTROL, Keeper, answering_in, kept, kept_in
from places import Place, Places, twin_of
from ports import check_free
from readiness import NotReady, tail
from scratch import check_scratch
from served_copies import unproven
from settings import body_limit
from starting import READY_TIMEOUT, must_be_sealed, settings_of, start_served, terms_of
from tokens import INFERENCE, curl_option

LOG = "keeper.log"
POLL = 0.1  # seconds between two looks at a keeper that starts
# Seconds in which a prediction that came through the front door is answered, or asked for again.
ANSWER = 20
FOREGROUND = "--foreground"


def add_arguments(starting: argparse.ArgumentParser) -> None:
    """Add what `up` takes besides the arguments of every start."""
    starting.add_argument(FOREGROUND, action="store_true", help="stay, until SIGTERM")
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
    if (state := kept_in(instance.folder)) is not None and state.process is not None:
        print(f"the front door is open already on {state.address}; first: make stop", file=sys.stderr)
        return 1
    began = time.monotonic()
    instance.folder.mkdir(parents=True, exist_ok=True)
    with (instance.folder / LOG).open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, *in_foreground(sys.argv)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        address = _opened(instance, keeper)
    except BaseException:  # Ctrl-C too: nothing half-started is left behind
        keeper.terminate()
        keeper.wait(DRAIN + STOP_GRACE)
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
    print("  stop   make stop")
    return 0


def keep_up(instance: Instance, arguments: argparse.Namespace) -> NoReturn:
    """Keep TorchServe up behind its front door until SIGTERM or Ctrl-C, which lose no answer.

    Raises Stopped then; whatever else it raises is of the first start.
    """
    settings = settings_of(arguments)
    if arguments.inside is not None:
        settings = settings.behind(arguments.inside)
    if (running := answering_in(instance).running()) is not None:
        raise NotStarted(f"TorchServe runs here already, as process {running.pid}; first: make stop")
    if (arguments.tls_certificate is None) != (arguments.tls_key is None):
        raise BadDoor("TLS takes a certificate and its key; give both: make up TLS_CERT=file TLS_KEY=file")
    check_free([arguments.door])
    check_scratch()
    stop_on_signals()
    twin = settings.beside(arguments.door)
    seen = health.Health()

    def opening_in(scratch: Path) -> Opening:
        return Opening(
            arguments.door, settings.inference, twin.inference, scratch, body_limit(arguments.config), ANSWER,
            arguments.rate, arguments.connections, arguments.tls_certificate, arguments.tls_key,
        )  # fmt: skip

    def start(place: Place) -> Running:
        with place.instance.lock():
            place.instance.stop()
            return start_served(place.instance, place.settings, place.served, arguments)

    with kept(instance, opening_in) as (opening, door), contextlib.ExitStack() as at_the_end:
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
        at_the_end.callback(seen.saw, "it is stopping")
        health.serve(seen, opening.health)
        control.serve(opening.scratch / CONTROL, deployments.deploy)
        keeper.keep()


def in_foreground(words: list[str]) -> list[str]:
    """Return the words of this command with the option to stay: before "--", behind which are files alone."""
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], FOREGROUND, *words[end:]]


def deploy(instance: Instance, arguments: argparse.Namespace) -> int:
    """Put other archives in the place of those that `up` serves; no request is lost."""
    state = kept_in(instance.folder)
    if state is None or state.process is None:
        print("error: nothing is up that it could take the place of; start it with: make up", file=sys.stderr)
        return 1
    control.ask(state.control, control.Asked(arguments.archive, must_be_sealed(arguments)), print)
    return 0


def _opened(instance: Instance, keeper: subprocess.Popen[bytes]) -> str:
    """Return the front door's address when what is behind it is ready."""
    end = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < end:
        if keeper.poll() is not None:
            said = (instance.folder / LOG).read_text(encoding="utf-8", errors="replace")
            raise NotStarted(said.strip().removeprefix("error: "))
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
