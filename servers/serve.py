"""Start, stop and look at this checkout's TorchServe."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

from instance import Instance
from java import NoJava, find_java
from mar import BadArchive, read_manifest
from ports import PortTaken, check_free
from readiness import Known, NotReady, tail, wait_until_ready, workers_of
from settings import BadSettings, Settings

# Seconds for all workers to load; model-config.yaml's startupTimeout is TorchServe's own limit.
READY_TIMEOUT = 120.0
LOG = "ts_log.log"


def main() -> int:
    """Do what the first argument says; return the exit status."""
    arguments = _arguments()
    instance = Instance(arguments.run)
    try:
        with instance.lock():
            return int(arguments.do(instance, arguments))
    except (BadArchive, BadSettings, NoJava, NotReady, PortTaken) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def start(instance: Instance, arguments: argparse.Namespace) -> int:
    """Start TorchServe and return when it is ready; a second start says that it runs."""
    if instance.running() is not None:
        return status(instance, arguments)
    model = read_manifest(arguments.archive)["model"]["modelName"]
    settings = Settings.from_file(arguments.config, arguments.port)
    java = find_java()
    check_free(settings.ports.values())
    began = time.monotonic()
    state = instance.start(settings, java, arguments.archive, model, _sha256(arguments.archive))
    try:
        wait_until_ready(state, instance.logs, Known(arguments.picture, arguments.answer), READY_TIMEOUT)
    except BaseException:  # Ctrl-C too: nothing half-started is left behind
        instance.stop()
        raise
    took = time.monotonic() - began
    print(f"serving {arguments.archive} on {state.inference}")
    print(f"  ready after {took:.1f} s, on Java {java.version} of {java.found}")
    print(f"  try   curl {state.inference}/predictions/{model} -T {arguments.picture}")
    print(f"  list  curl {state.management}/models")
    print(f"  logs  {os.path.relpath(instance.logs / LOG)}")
    print("  stop  make stop")
    return 0


def stop(instance: Instance, _: argparse.Namespace) -> int:
    """Stop TorchServe; it is no error that none runs."""
    print("stopped" if instance.stop() else "nothing to stop: TorchServe is not running")
    return 0


def status(instance: Instance, arguments: argparse.Namespace) -> int:
    """Say what runs here; 1 where nothing does, or not all workers are ready."""
    state = instance.running()
    if state is None:
        print("not running; start it with: make serve")
        return 1
    ready, wanted = workers_of(state.management, state.model)
    print(f"{state.archive} is served on {state.inference} by process {state.pid}; to stop it: make stop")
    print(f"{ready} of {wanted} workers ready")
    if arguments.archive.exists() and _sha256(arguments.archive) != state.archive_sha256:
        print(f"{arguments.archive} has changed since; to serve the new one: make stop serve")
    return int(ready < wanted)


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


def _sha256(archive: Path) -> str:
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("run"), help="folder of the server's state, logs")
    parser.add_argument("--archive", type=Path, default=Path("model_store/convnet.mar"))
    commands = parser.add_subparsers(required=True)
    starting = commands.add_parser("start", help=start.__doc__)
    starting.set_defaults(do=start)
    starting.add_argument("--config", type=Path, default=Path("config.properties"))
    starting.add_argument("--port", type=int, help="the first of five ports")
    starting.add_argument("--picture", type=Path, required=True, help="a picture to be answered before ready")
    starting.add_argument("--answer", required=True, help="its answer")
    commands.add_parser("stop", help=stop.__doc__).set_defaults(do=stop)
    commands.add_parser("status", help=status.__doc__).set_defaults(do=status)
    printing = commands.add_parser("logs", help=logs.__doc__)
    printing.set_defaults(do=logs)
    printing.add_argument("--lines", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
