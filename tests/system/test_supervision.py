"""Supervision: whatever is killed, hung or deleted is noticed, reported, repaired and can be stopped."""

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
from marctl.serve.front.nginx import PROGRAM
from marctl.serve.front.supervisor_lock import Supervision
from marctl.serve.make_command import make_command
from marctl.serve.ports import why_not
from marctl.serve.processes import ENDED, Process, boot, lives, living, processes
from tests.conftest import DIGITS, MARCTL, ROOT, free_port, make
from tests.support.waiting import PATIENCE, wait_until
from tests.system.test_front_door import self_signed

pytestmark = pytest.mark.torchserve

NOBODY = 65534


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


@pytest.fixture
def run(tmp_path):
    """A folder for a server; what a failed test leaves in it is killed, whatever make stop thinks."""
    folder = tmp_path / "run"
    yield folder
    make("stop", RUN=str(folder))
    for one in of_folder(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A stack for all tests that leave it as it was."""
    run = tmp_path_factory.mktemp("up")
    yield started(run)
    make("stop", RUN=str(run))


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
HARM = {
    "master killed": (KILL, slice(0, 1)),
    "workers killed": (KILL, slice(1, None)),
    "all killed": (KILL, slice(0, None)),
    "master stopped": (STOP, slice(0, 1)),
    "a worker stopped": (STOP, slice(1, 2)),
    "all stopped": (STOP, slice(0, None)),
}


@pytest.mark.nginx
@pytest.mark.parametrize("harm", HARM)
def test_proxy_comes_back(up, harm):
    """Whatever part of nginx is killed or hangs: a new one answers, and no old process is left."""
    wait_until(lambda: is_ready(up))
    before = nginx_of(up.run)
    assert len(before) >= 2
    number, which = HARM[harm]
    harmed = before[which]
    java = java_of(up.run)
    kill(*harmed, number=number)
    gone = harmed if which == slice(1, None) else before  # nginx itself replaces a killed worker

    def is_whole() -> bool:
        now = nginx_of(up.run)
        has_master = any("master process" in " ".join(one.command) for one in now)
        return has_master and len(now) == len(before) and not any(lives(one) for one in gone)

    wait_until(lambda: is_whole() and is_ready(up))
    check_that_it_answers(up)
    assert lives(java)


@pytest.mark.nginx
def test_proxy_that_cannot_come_back_is_told_of(run):
    """If another process takes its port, status says so, and it is back once the port is free."""
    running = started(run)
    taker = (
        "import socket, sys, time\n"
        "while True:\n"
        "    try:\n"
        "        taken = socket.create_server(('', int(sys.argv[1])))\n"
        "    except OSError:\n"
        "        continue\n"
        "    print('taken', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", taker, str(running.door)], stdout=subprocess.PIPE) as other:
        # The supervisor is stopped until the other process has the port.
        kill(supervisor_of(run), number=signal.SIGSTOP)
        kill(*nginx_of(run))
        assert other.stdout.readline() == b"taken\n"
        kill(supervisor_of(run), number=signal.SIGCONT)
        wait_until(lambda: "98: Address already in use" in (run / "keeper.log").read_text())
        status = make("status", RUN=str(run))
        assert status.returncode != 0
        assert f"the proxy does not answer on {running.url}: " in status.stdout
        assert "2 of 2 workers ready" in status.stdout
        other.kill()
    wait_until(lambda: is_ready(running))
    check_that_it_answers(running)


@pytest.mark.nginx
def test_proxy_with_tls_comes_back(run, tmp_path):
    """The check of our own proxy does not verify its certificate."""
    certificate, key = self_signed(tmp_path)
    running = started(run, TLS_CERT=str(certificate), TLS_KEY=str(key))
    url = f"https://127.0.0.1:{running.door}"

    def answers() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{url}/health/ready", verify=str(certificate), timeout=PATIENCE).ok
        return False

    before = nginx_of(run)
    time.sleep(5)  # checks that find nothing wrong
    assert nginx_of(run)[0].pid == before[0].pid
    kill(*before)
    wait_until(lambda: nginx_of(run) and answers())
    status = make("status", RUN=str(run))
    assert (status.returncode, f"the proxy answers on {url}: ready" in status.stdout) == (0, True)


@pytest.mark.nginx
def test_torchserve_that_stands_still_is_started_again(up):
    """It is alive but hangs: after three checks it is killed, and a new one answers."""
    java = java_of(up.run)
    kill(java, number=signal.SIGSTOP)
    wait_until(lambda: not is_ready(up))
    assert make("status", RUN=str(up.run)).returncode != 0
    wait_until(lambda: not lives(java))
    wait_until(lambda: is_ready(up))
    check_that_it_answers(up)


@pytest.mark.nginx
def test_supervisor_that_stands_still_is_told_of(up, archive):
    """The stack still answers but would not be restarted: status says how to resume it."""
    supervisor = supervisor_of(up.run)
    kill(supervisor, number=signal.SIGSTOP)
    try:
        status, deploy = make("status", RUN=str(up.run)), make("deploy", RUN=str(up.run), MAR=str(archive))
    finally:
        kill(supervisor, number=signal.SIGCONT)
    assert status.returncode != 0
    sentence = f"the supervisor, process {supervisor.pid} (python), is suspended, as by SIGSTOP"
    told = status.stdout.splitlines()
    assert told[0] == f"{sentence}, and restarts nothing"
    assert told[1:3] == [f"  resume   kill -CONT {supervisor.pid}", f"  stop     make stop RUN={up.run}"]
    assert f"error: {sentence}; to resume it: kill -CONT {supervisor.pid}\n" in deploy.stderr
    wait_until(lambda: is_ready(up))
    check_that_it_answers(up)


def of_all(run: Path) -> list[Process]:
    return [supervisor_of(run), *nginx_of(run), java_of(run), *Stack(0, 0, run).workers]


KILLED = {
    "supervisor": lambda run: [supervisor_of(run)],
    "supervisor and proxy's master": lambda run: [supervisor_of(run), nginx_of(run)[0]],
    "supervisor and proxy": lambda run: [supervisor_of(run), *nginx_of(run)],
    "supervisor and TorchServe": lambda run: [supervisor_of(run), java_of(run)],
    "everything": of_all,
}


@pytest.mark.nginx
@pytest.mark.parametrize("what", KILLED)
def test_killed_supervisor_is_told_of_and_started_again(run, what):
    """Status reports its death and what it left; make up replaces that; stop leaves nothing."""
    running = started(run)
    victims = [one.pid for one in KILLED[what](run)]
    before = of_folder(run)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(one.pid in victims for one in of_folder(run)))
    status = make("status", RUN=str(run))
    assert status.returncode != 0
    told = status.stdout.splitlines()
    assert told[0] == f"the supervisor, process {victims[0]}, ended without stopping what it had started"
    left = {int(pid) for pid in re.findall(r"process (\d+)", told[1])}
    assert left == {one.pid for one in of_folder(run)}
    again(running)
    assert not any(lives(one) for one in before)
    check_that_it_answers(running)
    assert make("stop", RUN=str(run)).stdout == "stopped\n"
    check_that_nothing_is_left(run)


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


@contextlib.contextmanager
def foreground(running: Stack, within: tuple[str, ...] = ()):
    """Start marctl up --foreground, as systemd or a container does; it is ended with the test."""
    options = ["--port", str(running.port), "--door", str(running.door), "model_store/convnet.mar"]
    command = [*MARCTL, "up", "--foreground", "--run", str(running.run), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([*within, *command], cwd=ROOT, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.nginx
def test_foreground_recovers_by_itself(run):
    """After a restart by systemd, it first ends what the killed supervisor left."""
    running = started(run)
    before = of_folder(run)
    kill(supervisor_of(run))
    with foreground(running) as process:
        wait_until(lambda: is_kept_by(run, process.pid) and is_ready(running))
        assert not any(lives(one) for one in before)
        check_that_it_answers(running)
        process.terminate()
        printed, _ = process.communicate()
    assert process.returncode == 0
    assert "ending what is left of it: process" in printed
    assert printed.splitlines()[-1] == "stopped by SIGTERM"
    check_that_nothing_is_left(run)


@pytest.mark.nginx
@pytest.mark.namespaces
def test_first_process_of_a_container_keeps_all_up(run):
    """As process 1, it restarts killed proxies and servers, and reaps all zombies."""
    running = Stack(free_port(), free_port(), run)
    alone = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with foreground(running, alone) as outside:
        wait_until(lambda: is_ready(running))
        inside = ("nsenter", "--target", str(outside_child(outside.pid)), "--pid", "--mount")

        def told() -> list[list[str]]:
            listed = ["ps", "-e", "-o", "pid=,stat=,comm="]
            done = subprocess.run([*inside, *listed], capture_output=True, text=True, check=True)
            return [line.split() for line in done.stdout.splitlines() if line.split()[2] != "ps"]

        for name in ("nginx", "java"):
            before = {pid for pid, _, command in told() if command == name}
            subprocess.run([*inside, "kill", "-KILL", *before], check=True)
            wait_until(lambda: not before & {pid for pid, *_ in told()} and is_ready(running))  # noqa: B023 used here
        wait_until(lambda: not any(state[0] in ENDED for _, state, _ in told()))
        assert requests.put(running.predictions, data=DIGITS["2"], timeout=PATIENCE).text == "2"
        os.kill(outside_child(outside.pid), signal.SIGTERM)
        printed, _ = outside.communicate()
    assert printed.splitlines()[-1] == "stopped by SIGTERM"


def outside_child(pid: int) -> int:
    """Return the process id, outside the namespace, of a process's only child."""
    [child] = [one.pid for one in processes() if one.parent == pid]
    return child


@pytest.mark.nginx
def test_of_several_starts_at_once_one_wins(run):
    """The others report it and fail, and leave no processes."""
    door, port = free_port(), free_port()
    starts = [begin(run, door, port) for _ in range(4)]
    done = [(start.communicate(timeout=PATIENCE), start.returncode) for start in starts]
    assert sorted(status for _, status in done) == [0, 2, 2, 2]
    for (_, errors), status in done:
        if status:
            assert re.match(r"error: (process \d+ .* up here already|another command starts)", errors), errors
            assert "Traceback" not in errors
    running = Stack(door, port, run)
    check_that_it_answers(running)
    assert len([one for one in of_folder(run) if "--foreground" in one.command]) == 1
    assert len([one for one in of_folder(run) if one.name == "java"]) == 1
    assert make("stop", RUN=str(run)).stdout == "stopped\n"
    check_that_nothing_is_left(run)


@pytest.mark.nginx
def test_serve_leaves_the_supervisors_folder_alone(up):
    """`make serve` says what runs there; it starts nothing, and stops nothing."""
    before = {one.pid for one in of_folder(up.run)}
    done = make("serve", RUN=str(up.run), PORT=str(free_port()))
    assert done.returncode != 0
    assert f"first: make stop RUN={up.run}" in done.stderr
    assert {one.pid for one in of_folder(up.run)} == before


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
def test_deleted_files_of_a_server_that_runs_come_back(up):
    """No answer is lost: the supervisor writes them again, its lock included."""
    pids = {one.pid for one in of_folder(up.run)}
    files = [*up.run.glob("*.json"), *up.run.glob("*lock"), *(up.run / "door").glob("*")]
    assert {"keeper.json", "server.json", "supervisor.lock"} <= {file.name for file in files}
    for file in files:
        file.unlink()
    assert make("up", RUN=str(up.run), PORT=str(free_port()), DOOR=str(free_port())).returncode != 0
    wait_until(lambda: Supervision(up.run).is_held and (up.run / "keeper.json").exists())
    check_that_it_answers(up)
    assert {one.pid for one in of_folder(up.run)} == pids


@pytest.mark.nginx
@pytest.mark.parametrize("tokens", ["off", "on"])
def test_deleted_folder_of_a_server_that_runs_comes_back(run, tokens):
    """With the checked bytes and the tokens: it is ready again, also after Java dies."""
    running = started(run, TOKENS=tokens)
    [copy] = (run / "served").glob("*.mar")
    served = copy.read_bytes()
    header = {}
    if tokens == "on":
        header = {"Authorization": f"Bearer {make('token', RUN=str(run)).stdout.strip()}"}

    def check() -> None:
        wait_until(lambda: copy.exists() and is_ready(running))
        reply = requests.put(running.predictions, data=DIGITS["2"], headers=header, timeout=PATIENCE)
        assert reply.text == "2"
        status = make("status", RUN=str(run))
        assert (status.returncode, status.stderr) == (0, ""), status.stdout
        assert f"the proxy answers on {running.url}: ready" in status.stdout

    supervisor = supervisor_of(run)
    shutil.rmtree(run)
    time.sleep(3)  # checks that find it missing
    check()
    assert copy.read_bytes() == served
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    assert Supervision(run).holder == supervisor
    java, workers = java_of(run), running.workers
    assert workers
    for worker in workers:
        worker.kill()
    wait_until(lambda: len(now := running.workers) == len(workers) and not set(now) & set(workers))
    check()
    shutil.rmtree(run)
    kill(java)
    wait_until(lambda: not lives(java))
    wait_until(lambda: not is_ready(running))
    wait_until(lambda: is_ready(running))
    if tokens == "on":  # a new TorchServe has new ones
        header = {"Authorization": f"Bearer {make('token', RUN=str(run)).stdout.strip()}"}
    check()
    assert make("stop", RUN=str(run)).stdout == "stopped\n"
    check_that_nothing_is_left(run)
    assert not copy.parent.exists()


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
