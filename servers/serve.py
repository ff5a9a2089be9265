"""Start, stop and look at this checkout's TorchServe."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from foreground import Ended, Stopped, stop_on_signals, watch
from instance import Instance, NotStarted, Running, Served
from java import NoJava, find_java
from mar import BadArchive, known_answer, read_manifest
from ports import PortTaken, check_free
from readiness import NotReady, tail, wait_until_ready, workers_of
from settings import BadSettings, Settings
from signature import BadKey, check_signature

# Seconds for all workers to load; model-config.yaml's startupTimeout is TorchServe's own limit.
READY_TIMEOUT = 120.0
LOG = "ts_log.log"
# Seconds that TorchServe gets to end in the foreground: it takes two, and Docker kills after ten.
FOREGROUND_GRACE = 4.0


def main() -> int:
    """Do what the first argument says; return the exit status."""
    arguments = _arguments()
    try:
        return int(arguments.do(Instance(arguments.run), arguments))
    except Stopped as signal:
        print(f"stopped by {signal}")
        return 0
    except (BadArchive, BadKey, BadSettings, Ended, NoJava, NotReady, NotStarted, PortTaken) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def start(instance: Instance, arguments: argparse.Namespace) -> int:
    """Start TorchServe and return when it is ready; a second start says that it runs."""
    with instance.lock():
        settings = _settings(arguments)
        if (running := instance.running()) is not None:
            return _already(running, settings, instance, arguments)
        try:
            state = _start_and_wait(instance, settings, arguments)
        except BaseException:  # Ctrl-C too: nothing half-started is left behind
            instance.stop()
            raise
    print(f"  try   curl {state.inference}/predictions/{state.served[0].model} -T {arguments.picture}")
    print(f"  list  curl {state.management}/models")
    print(f"  logs  {os.path.relpath(instance.logs / LOG)}")
    print("  stop  make stop")
    return 0


def run(instance: Instance, arguments: argparse.Namespace) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C, as the first process of a container does.

    Raises Stopped then, and Ended where TorchServe ends by itself; either way nothing is left running.
    """
    settings = _settings(arguments)
    with contextlib.ExitStack() as at_the_end:
        with instance.lock():
            if (running := instance.running()) is not None:
                raise NotStarted(f"TorchServe runs here already, as process {running.pid}; first: make stop")
            at_the_end.callback(instance.stop, FOREGROUND_GRACE)
            stop_on_signals()
            state = _start_and_wait(instance, settings, arguments)
        watch(state, instance.logs / LOG)


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = Settings.from_file(arguments.config, arguments.port)
    return settings.on_host(arguments.host) if arguments.host else settings


def _start_and_wait(instance: Instance, settings: Settings, arguments: argparse.Namespace) -> Running:
    """Start TorchServe, return when it is ready, and say so."""
    if arguments.public_key is not None:
        for archive in arguments.archive:
            check_signature(archive, arguments.public_key)
    served = [describe(archive) for archive in arguments.archive]
    java = find_java()
    check_free(settings.ports)
    began = time.monotonic()
    state = instance.start(settings, java, _store(arguments.archive), served, arguments.log_config)
    wait_until_ready(state, instance.logs, READY_TIMEOUT)
    took = time.monotonic() - began
    print(f"serving {_names(served)} on {state.inference}")
    print(f"  ready after {took:.1f} s, on Java {java.version} of {java.found}", flush=True)
    return state


def _already(running: Running, settings: Settings, instance: Instance, arguments: argparse.Namespace) -> int:
    """Say what runs; 1 where that is not what was asked for."""
    unready = status(instance, arguments)
    asked = [str(archive) for archive in arguments.archive]
    if running.inference != settings.inference or [one.archive for one in running.served] != asked:
        print(f"not started: {', '.join(asked)} on {settings.inference}; first: make stop", file=sys.stderr)
        return 1
    return unready


def describe(archive: Path) -> Served:
    """Say what an archive serves. Raises BadArchive where it is no archive that can be held to answers."""
    model = read_manifest(archive)["model"]
    known_answer(archive)
    return Served(model["modelName"], model["modelVersion"], str(archive), _sha256(archive))


def stop(instance: Instance, _: argparse.Namespace) -> int:
    """Stop TorchServe; it is no error that none runs."""
    print("stopped" if instance.stop() else "nothing to stop: TorchServe is not running")
    return 0


def status(instance: Instance, _: argparse.Namespace) -> int:
    """Say what runs here; 1 where nothing does, a worker is not ready or the archive has changed."""
    state = instance.running()
    if state is None:
        print("not running; start it with: make serve")
        return 1
    print(f"{_names(state.served)} served on {state.inference} by process {state.pid}; to stop it: make stop")
    unready = 0
    for one in state.served:
        ready, wanted = workers_of(state.management, one)
        unready += ready < wanted
        print(f"{one.model} {one.version}: {ready} of {wanted} workers ready")
        if Path(one.archive).exists() and _sha256(Path(one.archive)) != one.sha256:
            print(f"{one.archive} has changed since; to serve the new one: make stop serve")
            unready += 1
    return int(unready > 0)


def logs(instance: Instance, arguments: argparse.Namespace) -> int:
    """Print the end of the log."""
    log = instance.logs / LOG
    if not log.exists():
        print("there are no logs yet; start TorchServe with: make serve")
        return 1
    print(tail(log, arguments.lines))
    shown = os.path.relpath(log)
    print(f"-- the last {arguments.lines} lines of {shown}; to follow it: tail -F {shown}")
    return 0


def _names(served: list[Served]) -> str:
    return ", ".join(one.archive for one in served)


def _store(archives: list[Path]) -> Path:
    """Return the one folder of the archives: TorchServe serves from no more."""
    folders = {archive.resolve().parent for archive in archives}
    if len(folders) > 1:
        raise BadArchive(f"the archives lie in {len(folders)} folders; put them into one, e.g. model_store")
    return folders.pop()


def _sha256(archive: Path) -> str:
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("run"), help="folder of the server's state, logs")
    commands = parser.add_subparsers(required=True)
    for do in (start, run):
        starting = commands.add_parser(do.__name__, help=(do.__doc__ or "").split("\n")[0])
        starting.set_defaults(do=do)
        starting.add_argument("--config", type=Path, default=Path("config.properties"))
        starting.add_argument("--port", type=int, help="the first of five ports")
        starting.add_argument("--host", help="of the HTTP addresses, as 0.0.0.0 in a container")
        starting.add_argument("--log-config", type=Path, help="a log4j2 file; TorchServe then prints here")
        starting.add_argument("--picture", type=Path, default=Path("image.jpg"), help="shown to be tried")
        starting.add_argument("--public-key", type=Path, help="serve only what was signed with this key")
        starting.add_argument("archive", type=Path, nargs="+", help=".mar files of one folder")
    commands.add_parser("stop", help=stop.__doc__).set_defaults(do=stop)
    commands.add_parser("status", help=status.__doc__).set_defaults(do=status)
    printing = commands.add_parser("logs", help=logs.__doc__)
    printing.set_defaults(do=logs)
    printing.add_argument("--lines", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
