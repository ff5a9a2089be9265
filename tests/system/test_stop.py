"""Whatever was started can be stopped: without its folder, its records or its supervisor."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import requests

from bench.servers.stack import Stack
from marctl.serve.make_command import make_command
from marctl.serve.ports import why_not
from marctl.serve.processes import Process, boot, lives, living
from tests.conftest import DIGITS, ROOT, free_port, make
from tests.support.stacks import (
    KILLED,
    begin,
    check_that_nothing_is_left,
    is_ready,
    java_of,
    kill,
    of_folder,
    started,
    supervisor_of,
)
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.torchserve


NOBODY = 65534


@pytest.mark.nginx
@pytest.mark.parametrize("what", KILLED)
def test_stop_ends_what_a_killed_supervisor_left(run, what):
    """It does so whatever else was killed, and however often it is called."""
    running = started(run)
    for one in KILLED[what](run):
        os.kill(one.pid, signal.SIGKILL)
    done = make("stop", RUN=str(run))
    assert (done.returncode, done.stderr) == (0, "")
    assert make("stop", RUN=str(run)).stdout == f"nothing to stop: no server runs in {run}\n"
    check_that_nothing_is_left(run)
    assert why_not(running.door) is None


@pytest.mark.nginx
@pytest.mark.parametrize("how", ["make stop", "Ctrl-C", "SIGTERM"])
def test_start_that_is_stopped_leaves_nothing(run, how):
    """Stopped once TorchServe has begun to start, make up fails without a traceback."""
    running = Stack(free_port(), free_port(), run)
    start = begin(run, running.door, running.port)
    wait_until(lambda: any(one.name == "java" for one in of_folder(run)) or start.poll() is not None)
    assert start.poll() is None, start.communicate()
    if how == "make stop":
        assert make("stop", RUN=str(run)).stdout == "stopped\n"
    else:
        os.killpg(start.pid, signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)
    printed, errors = start.communicate(timeout=PATIENCE)
    assert start.returncode != 0
    assert "Traceback" not in printed + errors
    check_that_nothing_is_left(run)
    assert why_not(running.door) is None


@pytest.mark.nginx
def test_stop_finds_the_server_of_a_deleted_folder(run):
    """Without any records, everything that was started for the folder is still found."""
    running = started(run)
    shutil.rmtree(run)
    assert make("stop", RUN=str(run)).stdout == "stopped\n"
    check_that_nothing_is_left(run)
    assert why_not(running.door) is None


@pytest.mark.nginx
def test_stop_finds_the_server_of_a_folder_that_was_moved(run):
    """It finds it by the new name; until then the server answers."""
    running = started(run)
    moved = run.rename(run.with_name("moved"))
    assert requests.put(running.predictions, data=DIGITS["2"], timeout=PATIENCE).text == "2"
    status = make("status", RUN=str(moved))
    assert f"the proxy answers on {running.url}: ready" in status.stdout
    everything = of_folder(run) + of_folder(moved)
    assert make("stop", RUN=str(moved)).stdout == "stopped\n"
    assert not any(lives(one) for one in everything)
    assert why_not(running.door) is None


def step_clock(pid: int, folder: Path) -> None:
    """Change the boot time that a process and its mount namespace see, as when the clock is set."""
    stat = Path("/proc/stat").read_text()
    [before] = re.findall(r"^btime (\d+)$", stat, re.MULTILINE)
    file = folder / "stat"
    file.write_text(stat.replace(f"btime {before}", f"btime {int(before) + 86_400}"))
    bind = ["mount", "--bind", str(file), "/proc/stat"]
    subprocess.run(["nsenter", "--target", str(pid), "--mount", *bind], check=True)


@pytest.mark.nginx
@pytest.mark.namespaces
def test_clock_that_steps_is_no_end(run, tmp_path):
    """Set ahead by a day: the server keeps answering, is restarted if it dies, and can be stopped."""
    running = Stack(free_port(), free_port(), run)
    with begin(run, running.door, running.port, ("unshare", "--mount")) as start:
        _, errors = start.communicate(timeout=PATIENCE)
    assert start.returncode == 0, errors
    java, supervisor = java_of(run), supervisor_of(run)
    step_clock(supervisor.pid, tmp_path)
    within = ("nsenter", "--target", str(supervisor.pid), "--mount", f"--wd={ROOT}")
    assert make("status", RUN=str(run), within=within).returncode == 0
    kill(java)
    wait_until(lambda: not is_ready(running))
    wait_until(lambda: is_ready(running))
    java = java_of(run)
    time.sleep(5)  # checks that find nothing wrong
    assert (java_of(run).pid, is_ready(running)) == (java.pid, True)
    for where in ((), within):  # with the old clock, and with the new one
        assert make("status", RUN=str(run), within=where).returncode == 0
    assert make("stop", RUN=str(run), within=within).stdout == "stopped\n"
    check_that_nothing_is_left(run)


@pytest.mark.namespaces
def test_stop_after_the_clock_has_stepped_ends_the_server(run, tmp_path):
    """`make serve` has no supervisor: stop identifies the server by its process alone."""
    assert make("serve", RUN=str(run), PORT=str(free_port())).returncode == 0
    with subprocess.Popen(["unshare", "--mount", "sleep", "600"]) as other:
        wait_until(lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n")
        step_clock(other.pid, tmp_path)
        within = ("nsenter", "--target", str(other.pid), "--mount", f"--wd={ROOT}")
        status = make("status", RUN=str(run), within=within)
        stop = make("stop", RUN=str(run), within=within)
        other.kill()
    assert (status.returncode, stop.stdout) == (0, "stopped\n")
    check_that_nothing_is_left(run)


def test_number_of_another_boot_is_another_process():
    """After a reboot, process ids and start times begin again."""
    me = Process.of(os.getpid())
    assert living(me.pid, me.started, boot()) == me
    assert living(me.pid, me.started, "another boot") is None
    assert living(me.pid, me.started + 1, boot()) is None


@pytest.fixture
def served(run):
    """A folder in which make serve has started a server."""
    done = make("serve", RUN=str(run), PORT=str(free_port()))
    assert done.returncode == 0, done.stderr
    return run


def earlier(state: dict) -> str:
    """Return a state as an earlier version wrote it, with the wall-clock time."""
    kept = {key: value for key, value in state.items() if key not in ("started", "boot")}
    return json.dumps(kept | {"created": time.time() - 1000})


SPOILT = {
    "of an earlier version": earlier,
    "cut short": lambda state: json.dumps(state)[:40],
    "empty": lambda _: "",
    "not an object": lambda _: "[1, 2]",
    "of another kind": lambda state: json.dumps(state | {"pid": "1", "started": None, "scratch": 5}),
    "of another process": lambda state: json.dumps(state | {"pid": os.getpid(), "scratch": "/"}),
}


@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_state_hides_no_server(served, how):
    """Status never says that nothing runs, and stop ends only what runs."""
    state = served / "server.json"
    spoilt = SPOILT[how](json.loads(state.read_text()))
    state.write_text(spoilt)
    status = make("status", RUN=str(served))
    if how == "of an earlier version":
        assert (status.returncode, "2 of 2 workers ready" in status.stdout) == (0, True)
    else:
        assert status.returncode != 0
        assert f"stop     make stop RUN={served}" in status.stdout
    assert make("stop", RUN=str(served)).stdout == "stopped\n"
    check_that_nothing_is_left(served)
    assert Path("/tmp").exists()  # noqa: S108 a state named it for removal


def test_serve_after_a_lost_state_starts_anew(served):
    """What still runs there holds the ports: it is ended, and the new server answers."""
    before = of_folder(served)
    (served / "server.json").unlink()
    done = make("serve", RUN=str(served), PORT=str(free_port()))
    assert done.returncode == 0, done.stderr
    assert not any(lives(one) for one in before)
    assert make("status", RUN=str(served)).returncode == 0


@pytest.mark.root
def test_what_cannot_be_ended_is_not_forgotten(served):
    """Another user's stop names the owner and fails; the owner's stop still finds the server."""
    state = (served / "server.json").read_text()
    with tempfile.TemporaryDirectory(prefix="run-of-root-") as folder:  # pytest's own folders are private
        Path(folder).chmod(0o755)
        shutil.copy(served / "server.json", folder)
        program = (
            "import os, pathlib, sys\nfrom marctl.serve.torchserve.instance import Instance\n"
            "from marctl.serve.processes import NotEnded\n"
            "own = Instance(pathlib.Path(sys.argv[1]))\nassert own.running()\n"
            f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "try: own.stop()\nexcept NotEnded as error: print(error)\n"
        )
        command = [sys.executable, "-c", program, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (Path(folder) / "server.json").read_text() == state
    java = java_of(served)
    assert done.stdout == f"process {java.pid} (java) belongs to user root; stop it as that user\n"
    assert lives(java)


def test_printed_command_stops_this_server(run):
    """Pasted into a shell, it stops what make serve started; a folder without one is named."""
    done = make("serve", RUN=str(run), PORT=str(free_port()))
    [line] = [line for line in done.stdout.splitlines() if line.startswith("  stop  ")]
    pasted = ["sh", "-c", line.removeprefix("  stop  ")]
    stopped = subprocess.run(pasted, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    nothing = make("stop", RUN=str(run))
    assert (nothing.returncode, nothing.stdout) == (0, f"nothing to stop: no server runs in {run}\n")


@pytest.mark.parametrize("name", ["other", "an other", "it's", 'a"b', "a;b", "-f", "run", "ü"])
def test_command_names_the_folder_as_a_shell_takes_it(name, monkeypatch, tmp_path):
    """The path is relative below this folder, otherwise absolute, and omitted for the default."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(make_command("stop serve", Path(name), "TOKENS=on"))
    assert words == ["make", "stop", "serve", "TOKENS=on", *([] if name == "run" else [f"RUN={name}"])]
    outside = tmp_path.parent / name
    assert shlex.split(make_command("stop", outside)) == ["make", "stop", f"RUN={outside}"]


@contextlib.contextmanager
def stubborn(run: Path):
    """A process of the folder's TorchServe that SIGTERM does not end."""
    logs = str(run / "logs")
    given = {"LOG_LOCATION": logs, "METRICS_LOCATION": logs, "TMPDIR": "/tmp/torchserve-of-a-test"}  # noqa: S108
    program = "trap '' TERM; echo ready; while :; do sleep 1; done"
    with subprocess.Popen(["sh", "-c", program], env=os.environ | given, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_stop_and_serve_in_one_command_leave_a_server(served):
    """The README's command works, also with several jobs in MAKEFLAGS.

    One of the old server's processes ends only on SIGKILL: the stop is slow, and the start has to wait for
    it.
    """
    before, state = java_of(served), json.loads((served / "server.json").read_text())
    port = state["inference"].rpartition(":")[2]
    with stubborn(served):
        done = make("stop", "serve", RUN=str(served), PORT=port, MAKEFLAGS="-j4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stopped\n")
    assert not lives(before)
    url = f"http://127.0.0.1:{port}/predictions/convnet"
    assert requests.put(url, data=DIGITS["2"], timeout=PATIENCE).text == "2"
