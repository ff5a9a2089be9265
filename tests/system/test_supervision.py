"""Supervision: whatever is killed, hung or deleted is noticed, reported and repaired."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import requests

from bench.servers.stack import Stack
from marctl.serve.front.supervisor_lock import Supervision
from marctl.serve.processes import ENDED, lives, processes
from tests.conftest import DIGITS, MARCTL, ROOT, free_port, make
from tests.support.stacks import (
    KILLED,
    again,
    begin,
    check_that_it_answers,
    check_that_nothing_is_left,
    is_kept_by,
    is_ready,
    java_of,
    kill,
    nginx_of,
    of_folder,
    started,
    supervisor_of,
)
from tests.support.waiting import PATIENCE, wait_until
from tests.system.test_front_door import self_signed

pytestmark = pytest.mark.torchserve


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
    sentence = f"the supervisor, {supervisor}, is suspended, as by SIGSTOP"
    told = status.stdout.splitlines()
    assert told[0] == f"{sentence}, and restarts nothing"
    assert told[1:3] == [f"  resume   kill -CONT {supervisor.pid}", f"  stop     make stop RUN={up.run}"]
    assert f"error: {sentence}; to resume it: kill -CONT {supervisor.pid}\n" in deploy.stderr
    wait_until(lambda: is_ready(up))
    check_that_it_answers(up)


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
            assert re.match(
                r"error: (process \d+ .* already supervises a server here|another command is starting)",
                errors,
            ), errors
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
