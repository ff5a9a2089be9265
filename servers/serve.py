"""Start, stop and look at this checkout's TorchServe."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import NoReturn

import roots  # noqa: F401 first of this project's own
from control import Refused
from foreground import Ended, Stopped, stop_on_signals, watch
from front_door import BadDoor
from health import fault_through
from instance import STATES, Instance, NotStarted, Running
from java import NoJava
from keeper import PATIENCE, answering_in, end_what_is_left, kept_in, left_in, stop_all
from make_command import make_command
from mar import BadArchive
from places import twin_of
from ports import PortTaken
from process_end import STOPPED, NotEnded, Process
from readiness import NotReady, tail, workers_of
from say import told_to_the_end
from scratch import BadScratch, unwritable
from served_copies import FOLDER, drop, sha256
from settings import BadSettings, Settings
from signature import BadKey
from starting import add_explain, add_sealed, names_of, picture_of, settings_of, start_and_wait
from supervision import Supervision
from tokens import INFERENCE, KINDS, MANAGEMENT, NoToken, curl_option
from up import add_arguments, deploy, up

LOG = "ts_log.log"
INTERRUPTED = 128  # and the signal's number on top, as shells have it
# Seconds that TorchServe gets to end in the foreground: it takes two, and Docker kills after ten.
FOREGROUND_GRACE = 4.0
# What is said in a sentence, without a traceback.
FAULTS = (
    BadArchive, BadDoor, BadKey, BadScratch, BadSettings, Ended, NoJava, NoToken, NotEnded, NotReady,
    NotStarted, PortTaken, Refused,
)  # fmt: skip


def main() -> int:
    """Do what the first argument says; return the exit status."""
    arguments = _arguments()
    stop_on_signals()
    instance = Instance(arguments.run)
    try:
        if starts(arguments):
            instance.claim()
        return int(arguments.do(instance, arguments))
    except Stopped as stopped:
        print(f"stopped by {stopped}")
        # What serves until it is stopped has done what it was asked to; a start has not.
        return 0 if stays(arguments) else INTERRUPTED + signal.Signals[str(stopped)]
    except FAULTS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"error: {error.filename}: {error.strerror}; do it as the user who owns it", file=sys.stderr)
        return 1
    except OSError as error:
        if (said := unwritable(arguments.run, error)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return 1


def starts(arguments: argparse.Namespace) -> bool:
    """Tell whether a server is to be started, by nobody who has looked at its folder already."""
    return arguments.do in (start, run, up) and getattr(arguments, "locked", None) is None


def stays(arguments: argparse.Namespace) -> bool:
    """Tell whether what is asked for goes on until it is stopped."""
    return arguments.do is run or (arguments.do is up and arguments.foreground)


def start(instance: Instance, arguments: argparse.Namespace) -> int:
    """Start TorchServe and return when it is ready; a second start says that it runs."""
    with instance.lock():
        settings = settings_of(arguments)
        _check_unsupervised(instance)
        if (running := answering_in(instance).running()) is not None:
            return _already(running, settings, instance, arguments)
        try:
            end_what_is_left(instance)
            state = start_and_wait(instance, settings, arguments.archive, arguments)
        except BaseException:  # Ctrl-C too: nothing half-started is left behind
            instance.stop()
            drop(instance.folder / FOLDER)
            raise
    ask, look = (curl_option(kind, arguments.run) if state.keys else "" for kind in (INFERENCE, MANAGEMENT))
    print(f"  try   curl {state.inference}/predictions/{state.served[0].model} -T {arguments.picture}{ask}")
    print(f"  list  curl {state.management}/models{look}")
    print(f"  logs  {os.path.relpath(instance.logs / LOG)}")
    print(f"  stop  {make_command('stop', instance.folder)}")
    return 0


def run(instance: Instance, arguments: argparse.Namespace) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C, as the first process of a container does.

    Raises Stopped then, and Ended where TorchServe ends by itself; either way nothing is left running.
    """
    settings = settings_of(arguments)
    with contextlib.ExitStack() as at_the_end:
        with instance.lock():
            _check_unsupervised(instance)
            if (running := answering_in(instance).running()) is not None:
                stop_it = make_command("stop", instance.folder)
                raise NotStarted(f"TorchServe runs here already, as process {running.pid}; first: {stop_it}")
            end_what_is_left(instance)
            at_the_end.callback(drop, instance.folder / FOLDER)
            at_the_end.callback(instance.stop, FOREGROUND_GRACE)
            state = start_and_wait(instance, settings, arguments.archive, arguments)
        watch(state, instance.logs / LOG)


def _check_unsupervised(instance: Instance) -> None:
    """Raise NotStarted where `make up` keeps, or begins to keep, a server up in the folder."""
    supervision = Supervision(instance.folder)
    if (holder := supervision.wait(PATIENCE)) is not None:  # a stop that is under way comes to its end
        if answering_in(instance).running() is None:
            raise NotStarted(
                f"{holder} keeps a server up here, which is not there just now; "
                f"first: {make_command('stop', instance.folder)}"
            )
    elif supervision.is_held:
        raise NotStarted(f"another command starts or stops the server of {instance.folder}; try again")


def _already(running: Running, settings: Settings, instance: Instance, arguments: argparse.Namespace) -> int:
    """Say what runs; 1 where that is not what was asked for."""
    unready = status(instance, arguments)
    first = f"first: {make_command('stop', instance.folder)}"
    asked = [str(archive) for archive in arguments.archive]
    if running.inference != settings.inference or [one.archive for one in running.served] != asked:
        print(f"not started: {', '.join(asked)} on {settings.inference}; {first}", file=sys.stderr)
        return 1
    if settings.tokens != (running.keys is not None):
        wanted = "with" if settings.tokens else "without"
        print(f"not started {wanted} tokens; {first}", file=sys.stderr)
        return 1
    return unready


def stop(instance: Instance, arguments: argparse.Namespace) -> int:
    """Stop TorchServe and all that was started with it; it is no error that none runs."""
    # Nothing is made or deleted in a folder of somebody's, unless a server of ours runs there.
    is_foreign = instance.is_foreign
    stopped = (_runs(instance) or (not is_foreign and _was_killed(instance))) and stop_all(instance)
    for folder in () if is_foreign else (instance.folder, twin_of(instance.folder).folder):
        drop(folder / FOLDER)
    print("stopped" if stopped else f"nothing to stop: no server runs in {arguments.run}")
    return 0


def _runs(instance: Instance) -> bool:
    """Tell whether anything of a server runs here, or is just being started or stopped."""
    supervision = Supervision(instance.folder)
    return supervision.is_held or supervision.holder is not None or bool(left_in(instance))


def _was_killed(instance: Instance) -> bool:
    """Tell whether a server of this folder has ended without forgetting what was written down of it."""
    folders = (instance.folder, twin_of(instance.folder).folder)
    return any((folder / name).exists() for folder in folders for name in STATES)


def status(instance: Instance, _: argparse.Namespace) -> int:
    """Say what runs here; 1 where nothing does, or anything of it is not as it should be."""
    supervision = Supervision(instance.folder)
    if (holder := supervision.wait()) is None and supervision.is_held:
        print(f"another command starts or stops the server of {instance.folder}; look again in a second")
        return 1
    wrong = _supervised(instance, holder) if holder is not None else _unsupervised(instance)
    state = answering_in(instance).running()
    if state is None:
        if holder is not None:
            print("TorchServe does not run; its supervisor starts it")
        elif not wrong:
            print(f"not running; start it with: {make_command('serve', instance.folder)}")
        return 1
    names = names_of(state.served)
    stop_it = make_command("stop", instance.folder)
    print(f"{names} served on {state.inference} by process {state.pid}; to stop it: {stop_it}")
    if state.keys is not None:
        see = make_command("token", instance.folder)
        print(f"it wants tokens, kept in {os.path.relpath(state.keys)}; to see one: {see}")
    for one in state.served:
        ready, wanted = workers_of(state, one)
        wrong |= ready < wanted
        sealed = "" if one.sealed else ", not sealed"
        print(f"{one.model} {one.version}: {ready} of {wanted} workers ready{sealed}")
        if Path(one.archive).exists() and sha256(Path(one.archive)) != one.sha256:
            new = make_command("deploy" if holder is not None else "stop serve", instance.folder)
            print(f"{one.archive} has changed since; to serve the new one: {new}")
            wrong = True
    return int(wrong)


def _supervised(instance: Instance, holder: Process) -> bool:
    """Say what the proxy of a supervisor answers; return whether anything is wrong with either."""
    if holder.state == STOPPED:
        print(f"the supervisor, {holder}, stands still, as by SIGSTOP, and starts nothing again")
        print(f"  go on    kill -CONT {holder.pid}")
        print(f"  stop     {make_command('stop', instance.folder)}")
        return True
    state = kept_in(instance.folder)
    if state is None or state.pid != holder.pid:
        print(f"the supervisor, {holder}, has not said yet where its proxy is; look again in a second")
        return True
    try:
        fault = fault_through(state.address, state.health)
    except OSError as error:
        print(f"the proxy does not answer on {state.address}: {error}; "
              f"its supervisor, {holder}, starts it again")  # fmt: skip
        return True
    print(f"the proxy answers on {state.address}: {fault or 'ready'}")
    return fault is not None


def _unsupervised(instance: Instance) -> bool:
    """Say what a supervisor that was killed has left behind; return whether there is anything."""
    killed, left = kept_in(instance.folder), left_in(instance)
    if killed is None and (not left or instance.running() is not None):
        return False
    again, stop_it = (make_command(target, instance.folder) for target in ("up", "stop"))
    was = "a supervisor" if killed is None else f"the supervisor, process {killed.pid},"
    print(f"{was} has ended without stopping what it had started")
    print(f"  left     {', '.join(map(str, left)) or 'nothing'}")
    print(f"  restart  {again}")
    print(f"  stop     {stop_it}")
    return True


def token(instance: Instance, arguments: argparse.Namespace) -> int:
    """Print a token that lets requests in, a new one where the old one has expired."""
    if arguments.kind not in KINDS:
        raise NoToken(f"KIND={arguments.kind} is not known; say KIND={' or KIND='.join(KINDS)}")
    state = answering_in(instance).running()
    if state is None:
        start_it = make_command("serve", instance.folder, "TOKENS=on")
        raise NoToken(f"there is no server to let you in; start it with: {start_it}")
    if state.keys is None:
        start_it = make_command("stop serve", instance.folder, "TOKENS=on")
        raise NoToken(f"this server wants no tokens; for one that does: {start_it}")
    found = state.key_file.token(arguments.kind)
    if found is None:
        raise NoToken(f"TorchServe has written no token into {state.keys} yet; try again")
    print(found)
    return 0


def logs(instance: Instance, arguments: argparse.Namespace) -> int:
    """Print the end of the log."""
    log = answering_in(instance).logs / LOG
    if not log.exists():
        print(f"there are no logs yet; start TorchServe with: {make_command('serve', instance.folder)}")
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
    deploying.add_argument("--public-key", type=Path, help="deploy only what was signed with this key")
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
    sys.exit(told_to_the_end(main))
