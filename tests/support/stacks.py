"""What `make up` runs in a folder: found by its processes, harmed, started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import requests

from bench.servers.stack import Stack
from marctl.serve.front.nginx import PROGRAM
from marctl.serve.processes import Process, lives, processes
from tests.conftest import DIGITS, ROOT, free_port, make
from tests.support.waiting import PATIENCE


def of_folder(run: Path) -> list[Process]:
    """Return all processes that were started for a folder, by arguments, environment or open files."""
    run = run.resolve()

    def is_of(process: Process) -> bool:
        told = [*process.command, *process.environment.values(), *(process.open_files or ())]
        return any(word == str(run) or word.startswith(f"{run}/") for word in told)

    return [one for one in processes() if lives(one) and is_of(one)]


def nginx_of(run: Path) -> list[Process]:
    """Return the folder's nginx processes, the master first."""
    found = [one for one in of_folder(run) if one.name == PROGRAM]
    return sorted(found, key=lambda one: one.parent in {each.pid for each in found})


def supervisor_of(run: Path) -> Process:
    """Return the supervisor of a folder."""
    found = Process.of(json.loads((run / "keeper.json").read_text())["pid"])
    assert found is not None
    return found


def is_kept_by(run: Path, pid: int) -> bool:
    """Return whether this process has recorded itself as the supervisor."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads((run / "keeper.json").read_text())["pid"] == pid
    return False


def java_of(run: Path) -> Process:
    """Return the folder's TorchServe."""
    found = Process.of(json.loads((run / "server.json").read_text())["pid"])
    assert found is not None
    return found


def kill(*them: Process, number: int = signal.SIGKILL) -> None:
    for one in them:
        os.kill(one.pid, number)


def up_command(run: Path, door: int, port: int) -> list[str]:
    return ["make", "up", f"RUN={run}", f"PORT={port}", f"DOOR={door}", "RATE=100000"]


def begin(run: Path, door: int, port: int, within: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start make up in its own process group, and return while it runs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [*within, *up_command(run, door, port)], cwd=ROOT, text=True, start_new_session=True, **pipes
    )


def started(run: Path, **variables: str) -> Stack:
    """Run make up on free ports."""
    running = Stack(free_port(), free_port(), run)
    again(running, **variables)
    return running


def again(running: Stack, **variables: str) -> None:
    """Run make up on the ports of an earlier stack."""
    ports = {"PORT": str(running.port), "DOOR": str(running.door), "RATE": "100000"}
    done = make("up", RUN=str(running.run), **ports, **variables)
    assert done.returncode == 0, done.stderr


def check_that_it_answers(running: Stack) -> None:
    assert requests.put(running.predictions, data=DIGITS["2"], timeout=PATIENCE).text == "2"
    status = make("status", RUN=str(running.run))
    assert (status.returncode, status.stderr) == (0, ""), status.stdout
    assert f"the proxy answers on {running.url}: ready" in status.stdout


def check_that_nothing_is_left(run: Path) -> None:
    assert [f"{one} {' '.join(one.command)}" for one in of_folder(run)] == []
    status = make("status", RUN=str(run))
    assert status.returncode != 0
    assert status.stdout == f"not running; start it with: make serve RUN={run}\n"


def is_refused(running: Stack) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        requests.get(running.url, timeout=PATIENCE)
        return False
    return True


def is_ready(running: Stack) -> bool:
    """Return whether the stack is ready; it may also be down."""
    with contextlib.suppress(requests.RequestException):
        return running.is_ready
    return False


def of_all(run: Path) -> list[Process]:
    return [supervisor_of(run), *nginx_of(run), java_of(run), *Stack(0, 0, run).workers]


KILLED = {
    "supervisor": lambda run: [supervisor_of(run)],
    "supervisor and proxy's master": lambda run: [supervisor_of(run), nginx_of(run)[0]],
    "supervisor and proxy": lambda run: [supervisor_of(run), *nginx_of(run)],
    "supervisor and TorchServe": lambda run: [supervisor_of(run), java_of(run)],
    "everything": of_all,
}
