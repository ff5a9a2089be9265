"""Report whether the server of a folder runs, and how many of its workers are ready."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from marctl.serve.front.health import fault_through
from marctl.serve.front.supervisor import answering_in, kept_in, left_in
from marctl.serve.front.supervisor_lock import Supervision
from marctl.serve.make_command import make_command
from marctl.serve.options import add_run, server_in
from marctl.serve.processes import STOPPED, Process
from marctl.serve.served_copies import sha256
from marctl.serve.torchserve.instance import Instance
from marctl.serve.torchserve.readiness import workers_of
from marctl.serve.torchserve.starting import names_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder."""
    add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what runs; return 1 if nothing does, or if any part of it is not in order."""
    with server_in(arguments.run) as instance:
        return report(instance)


def report(instance: Instance) -> int:
    """Print what runs here; return 1 if nothing does, or if any part of it is not in order."""
    supervision = Supervision(instance.folder)
    if (holder := supervision.wait()) is None and supervision.is_held:
        print(
            f"another command is starting or stopping the server in {instance.folder}; try again in a second"
        )
        return 1
    wrong = _supervised(instance, holder) if holder is not None else _unsupervised(instance)
    state = answering_in(instance).running()
    if state is None:
        if holder is not None:
            print("TorchServe is not running; its supervisor is starting it")
        elif not wrong:
            print(f"not running; start it with: {make_command('serve', instance.folder)}")
        return 1
    names = names_of(state.served)
    stop_it = make_command("stop", instance.folder)
    print(f"{names} served on {state.inference} by process {state.pid}; to stop it: {stop_it}")
    if state.keys is not None:
        print_one = make_command("token", instance.folder)
        print(f"tokens are on, kept in {os.path.relpath(state.keys)}; to print one: {print_one}")
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
    """Print what a supervisor's proxy answers; return whether anything is wrong with either."""
    if holder.state == STOPPED:
        print(f"the supervisor, {holder}, is suspended, as by SIGSTOP, and restarts nothing")
        print(f"  resume   kill -CONT {holder.pid}")
        print(f"  stop     {make_command('stop', instance.folder)}")
        return True
    state = kept_in(instance.folder)
    if state is None or state.pid != holder.pid:
        print(f"the supervisor, {holder}, has not reported its proxy's address yet; try again in a second")
        return True
    try:
        fault = fault_through(state.address, state.health)
    except OSError as error:
        print(f"the proxy does not answer on {state.address}: {error}; "
              f"its supervisor, {holder}, is restarting it")  # fmt: skip
        return True
    print(f"the proxy answers on {state.address}: {fault or 'ready'}")
    return fault is not None


def _unsupervised(instance: Instance) -> bool:
    """Print what a killed supervisor has left behind; return whether there is anything."""
    killed, left = kept_in(instance.folder), left_in(instance)
    if killed is None and (not left or instance.running() is not None):
        return False
    again, stop_it = (make_command(target, instance.folder) for target in ("up", "stop"))
    was = "a supervisor" if killed is None else f"the supervisor, process {killed.pid},"
    print(f"{was} ended without stopping what it had started")
    print(f"  left     {', '.join(map(str, left)) or 'nothing'}")
    print(f"  restart  {again}")
    print(f"  stop     {stop_it}")
    return True
