"""Start, stop and look at this checkout's TorchServe."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

import roots  # noqa: F401 first of this project's own
from control import Refused
from foreground import Ended, Stopped, stop_on_signals, watch
from front_door import BadDoor
from instance import Instance, NotStarted, Running
from java import NoJava
from keeper import answering_in, end_keeper, kept_in
from mar import BadArchive
from places import twin_of
from ports import PortTaken
from readiness import NotReady, tail, workers_of
from scratch import BadScratch
from served_copies import FOLDER, drop, sha256
from settings import BadSettings, Settings
from signature import BadKey
from starting import add_explain, add_sealed, names_of, picture_of, settings_of, start_and_wait
from tokens import INFERENCE, KINDS, MANAGEMENT, NoToken, curl_option
from up import add_arguments, deploy, up

LOG = "ts_log.log"
# Seconds that TorchServe gets to end in the foreground: it takes two, and Docker kills after ten.
FOREGROUND_GRACE = 4.0
# What is said in a sentence, without a traceback.
FAULTS = (
    BadArchive, BadDoor, BadKey, BadScratch, BadSettings, Ended, NoJava, NoToken, NotReady, NotStarted,
    PortTaken, Refused,
)  # fmt: skip


def main() -> int:
    """Do what the first argument says; return the exit status."""
    arguments = _arguments()
    try:
        return int(arguments.do(Instance(arguments.run), arguments))
    except Stopped as signal:
        print(f"stopped by {signal}")
        return 0
    except FAULTS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def start(instance: Instance, arguments: argparse.Namespace) -> int:
    """Start TorchServe and return when it is ready; a second start says that it runs."""
    with instance.lock():
        settings = settings_of(arguments)
        if (running := answering_in(instance).running()) is not None:
            return _already(running, settings, instance, arguments)
        try:
            state = start_and_wait(instance, settings, arguments.archive, arguments)
        except BaseException:  # Ctrl-C too: nothing half-started is left behind
            instance.stop()
            drop(instance.folder / FOLDER)
            raise
    ask, look = (curl_option(kind, arguments.run) if state.keys else "" for kind in (INFERENCE, MANAGEMENT))
    print(f"  try   curl {state.inference}/predictions/{state.served[0].model} -T {arguments.picture}{ask}")
    print(f"  list  curl {state.management}/models{look}")
    print(f"  logs  {os.path.relpath(instance.logs / LOG)}")
    print("  stop  make stop")
    return 0


def run(instance: Instance, arguments: argparse.Namespace) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C, as the first process of a container does.

    Raises Stopped then, and Ended where TorchServe ends by itself; either way nothing is left running.
    """
    settings = settings_of(arguments)
    with contextlib.ExitStack() as at_the_end:
        with instance.lock():
            if (running := answering_in(instance).running()) is not None:
                raise NotStarted(f"TorchServe runs here already, as process {running.pid}; first: make stop")
            at_the_end.callback(drop, instance.folder / FOLDER)
            at_the_end.callback(instance.stop, FOREGROUND_GRACE)
            stop_on_signals()
            state = start_and_wait(instance, settings, arguments.archive, arguments)
        watch(state, instance.logs / LOG)


def _already(running: Running, settings: Settings, instance: Instance, arguments: argparse.Namespace) -> int:
    """Say what runs; 1 where that is not what was asked for."""
    unready = status(instance, arguments)
    asked = [str(archive) for archive in arguments.archive]
    if running.inference != settings.inference or [one.archive for one in running.served] != asked:
        print(f"not started: {', '.join(asked)} on {settings.inference}; first: make stop", file=sys.stderr)
        return 1
    if settings.tokens != (running.keys is not None):
        wanted = "with" if settings.tokens else "without"
        print(f"not started {wanted} tokens; first: make stop", file=sys.stderr)
        return 1
    return unready


def stop(instance: Instance, _: argparse.Namespace) -> int:
    """Stop TorchServe; it is no error that none runs."""
    stopped = end_keeper(instance) | instance.stop()
    for folder in (instance.folder, twin_of(instance.folder).folder):
        drop(folder / FOLDER)
    print("stopped" if stopped else "nothing to stop: TorchServe is not running")
    return 0


def status(instance: Instance, _: argparse.Namespace) -> int:
    """Say what runs here; 1 where nothing does, a worker is not ready or the archive has changed."""
    state = answering_in(instance).running()
    if state is None:
        print("not running; start it with: make serve")
        return 1
    if is_up := (door := kept_in(instance.folder)) is not None and door.process is not None:
        print(f"the front door is open on {door.address}")
    names = names_of(state.served)
    print(f"{names} served on {state.inference} by process {state.pid}; to stop it: make stop")
    if state.keys is not None:
        print(f"it wants tokens, kept in {os.path.relpath(state.keys)}; to see one: make token")
    unready = 0
    for one in state.served:
        ready, wanted = workers_of(state, one)
        unready += ready < wanted
        sealed = "" if one.sealed else ", not sealed"
        print(f"{one.model} {one.version}: {ready} of {wanted} workers ready{sealed}")
        if Path(one.archive).exists() and sha256(Path(one.archive)) != one.sha256:
            how = "make deploy" if is_up else "make stop serve"
            print(f"{one.archive} has changed since; to serve the new one: {how}")
            unready += 1
    return int(unready > 0)


def token(instance: Instance, arguments: argparse.Namespace) -> int:
    """Print a token that lets requests in, a new one where the old one has expired."""
    if arguments.kind not in KINDS:
        raise NoToken(f"KIND={arguments.kind} is not known; say KIND={' or KIND='.join(KINDS)}")
    state = answering_in(instance).running()
    if state is None:
        raise NoToken("there is no server to let you in; start it with: make serve TOKENS=on")
    found = state.key_file.token(arguments.kind)
    if found is None:
        raise NoToken(f"TorchServe has written no token into {state.keys} yet; try again")
    print(found)
    return 0


def logs(instance: Instance, arguments: argparse.Namespace) -> int:
    """Print the end of the log."""
    log = answering_in(instance).logs / LOG
    if not log.exists():
        print("there are no logs yet; start TorchServe with: make serve")
        return 1
    print(tail(log, arguments.lines))
    shown = os.path.relpath(log)
    print(f"-- the last {arguments.lines} lines of {shown}; to follow it: tail -F {shown}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("run"), help="folder of the server's state, logs")
    commands = parser.add_subparsers(required=True)
    for do in (start, run, up):
        starting = commands.add_parser(do.__name__, help=(do.__doc__ or "").split("\n")[0])
        starting.set_defaults(do=do)
        starting.add_argument("--config", type=Path, default=Path("config.properties"))
        starting.add_argument("--port", type=int, help="the first of five ports")
        starting.add_argument("--host", help="of the HTTP addresses, as 0.0.0.0 in a container")
        starting.add_argument("--tokens", help="on: only who sends a token is answered; off")
        starting.add_argument("--log-config", type=Path, help="a log4j2 file; TorchServe then prints here")
        starting.add_argument("--picture", type=picture_of, default="image.jpg", help="shown to be tried")
        starting.add_argument("--public-key", type=Path, help="serve only what was signed with this key")
        add_explain(starting)
        add_sealed(starting)
        _add_archives(starting)
        if do is up:
            add_arguments(starting)
    deploying = commands.add_parser("deploy", help=(deploy.__doc__ or "").split("\n")[0])
    deploying.set_defaults(do=deploy)
    add_sealed(deploying)
    _add_archives(deploying)
    commands.add_parser("stop", help=stop.__doc__).set_defaults(do=stop)
    commands.add_parser("status", help=status.__doc__).set_defaults(do=status)
    showing = commands.add_parser("token", help=token.__doc__)
    showing.set_defaults(do=token)
    showing.add_argument("--kind", default=INFERENCE, help=" or ".join(KINDS))
    printing = commands.add_parser("logs", help=logs.__doc__)
    printing.set_defaults(do=logs)
    printing.add_argument("--lines", type=int, default=40)
    arguments = parser.parse_args()
    if "archive" in arguments:
        arguments.archive += [Path(word) for word in arguments.archives]
        if not arguments.archive:
            parser.error("name an archive")
    return arguments


def _add_archives(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path, nargs="*", help=".mar files")
    parser.add_argument("--archives", type=shlex.split, default=[], help="the same, as words of a shell")


if __name__ == "__main__":
    sys.exit(main())
