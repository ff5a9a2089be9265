"""Flask's server starts, fails to start and stops with a line each, and leaves nothing behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import zipfile

import psutil
import pytest
import requests

from tests.conftest import IMAGES, ROOT, free_port
from tests.support.flask_process import flask_of, refused
from tests.support.waiting import PATIENCE, wait_for_the_end_of

pytestmark = pytest.mark.flask


def test_start_prints_what_can_be_pasted(archive):
    """Once an image was answered, it prints the URL, a curl line, the page and how to stop."""
    with flask_of(archive, "--image", "tests/images/2.png") as running:
        first, ready, page, line, stop = running.printed
        assert first == f"serving {archive} on {running.url} with Flask\n"
        assert ready.startswith("  ready after ")
        assert stop == "  stop  Ctrl-C\n"
        assert page == f"  page  {running.url}/\n"
        assert "<title>" in requests.get(page.split()[1], timeout=PATIENCE).text
        _, *curl = line.split()
        done = subprocess.run(curl, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout == "2"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stop_is_clean(archive, tmp_path, name):
    """It exits with 0; its processes, temporary files and port are gone; the home folder is untouched."""
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    with flask_of(archive, HOME=str(home), TMPDIR=str(scratch)) as running:
        family = psutil.Process(running.process.pid).children(recursive=True)
        assert any(scratch.rglob("convnet_handler.py"))  # the archive is unpacked there
        assert running.stop(getattr(signal, name)) == 0
        wait_for_the_end_of(family)
        assert not [file for folder in (scratch, home) for file in folder.iterdir()]
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{running.url}/ping", timeout=PATIENCE)


def test_killed_worker_is_replaced(archive):
    """A worker that dies loses at most its request: another one answers."""
    with flask_of(archive) as running:
        main = psutil.Process(running.process.pid)
        old = main.children()
        for worker in old:
            worker.kill()
        wait_for_the_end_of(old)
        url = f"{running.url}/predictions/convnet"
        image = (IMAGES / "7.png").read_bytes()
        assert requests.put(url, data=image, timeout=PATIENCE).text == "7"
        assert not {worker.pid for worker in main.children()} & {worker.pid for worker in old}


PROGRAM = """
import os, signal, sys
from marctl.archive.mar import BadArchive
from marctl.errors import UserError
from marctl.serve.flask.gunicorn import Server, own_folder

def load():
    {loading}
    return answer

def answer(environ, start_response):
    if environ["PATH_INFO"] == "/end":
        os._exit(3)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]

with own_folder() as folder:
    try:
        Server(sys.argv[1], folder, load, prove=lambda: print("proven", flush=True)).serve()
    except UserError as fault:
        print(f"error: {{fault}}", flush=True)
"""


@contextlib.contextmanager
def gunicorn(loading: str = "pass"):
    """Start the server with a small application; yield its URL and process."""
    address, pipes = f"127.0.0.1:{free_port()}", {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", PROGRAM.format(loading=loading), address]
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            yield f"http://{address}", process
        finally:
            process.terminate()


ENDS = {
    "os._exit(3)": "status 3",
    "os._exit(4)": "status 4",
    "os._exit(0)": "status 0",
    "os.kill(os.getpid(), signal.SIGKILL)": "signal 9; out of memory?",
    "os.abort()": "signal 6",
}


@pytest.mark.parametrize("end", ENDS)
def test_worker_that_ends_while_it_loads_ends_the_server(end):
    """A new worker would die as well: the error says how it died, and nothing is retried."""
    with gunicorn(end) as (_, process):
        printed, errors = process.communicate(timeout=PATIENCE)
    assert printed == f"error: a worker ended while it loaded ({ENDS[end]})\n"
    assert "Traceback" not in errors


def test_worker_that_ends_later_is_replaced():
    """The exit status does not matter, even one at which gunicorn would stop the server."""
    with gunicorn() as (url, process):
        assert process.stdout.readline() == "proven\n"
        old = {worker.pid for worker in psutil.Process(process.pid).children()}
        while old & {worker.pid for worker in psutil.Process(process.pid).children()}:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{url}/end", timeout=PATIENCE)
        assert int(requests.get(url, timeout=PATIENCE).text) not in old
        process.terminate()
        printed, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (0, "")
    assert "Traceback" not in errors


STOPPED_WHILE_LOADING = """
    try:
        os.mkdir(folder / "first")
    except FileExistsError:  # the second worker
        try:
            print("loading", flush=True)
            signal.pause()
        except SystemExit:
            raise BadArchive("a module's import was interrupted")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stop_during_a_worker_s_loading_is_no_fault(name):
    """What the signal breaks in that worker is not reported as the reason for the end."""
    with gunicorn(STOPPED_WHILE_LOADING) as (_, process):
        assert {process.stdout.readline() for _ in range(2)} == {"proven\n", "loading\n"}
        process.send_signal(getattr(signal, name))
        printed, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (0, "")
    assert "Traceback" not in errors


@pytest.mark.parametrize("stop", [os.killpg, os.kill], ids=["ctrl-c-to-all", "signal-to-make-alone"])
def test_make_flask_serves_until_it_is_stopped(tmp_path, stop):
    """The README's command runs in the foreground: when make ends, so does the server."""
    port = free_port()
    command = ["make", "flask", f"PORT={port}"]
    with (tmp_path / "printed").open("w+") as printed:
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=printed, text=True,
            start_new_session=True,
        ) as running:  # fmt: skip
            lines = iter(running.stdout.readline, "")
            assert any(line == "  stop  Ctrl-C\n" for line in lines)
            assert requests.get(f"http://127.0.0.1:{port}/ping", timeout=PATIENCE).ok
            family = psutil.Process(running.pid).children(recursive=True)
            stop(running.pid, signal.SIGINT if stop is os.killpg else signal.SIGTERM)
            assert len(family) > 2
            wait_for_the_end_of(family)
        printed.seek(0)
        assert "Traceback" not in printed.read()


def test_taken_port_names_its_holder(archive):
    """The error names the port and the process, and says what to do."""
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        line = refused(archive, "--port", str(port))
    assert line.startswith(f"error: port {port} is taken by process {os.getpid()} (")
    assert line.endswith("serve on another port: make flask PORT=9890")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "70000"], "there is no port 70000; try PORT=9890"),
        (["--host", "192.0.2.1"], "port 8890 of 192.0.2.1 cannot be opened (Cannot assign"),
        (["--config", "/none"], "cannot read /none: No such file or directory"),
        (["--public-key", "/none"], "cannot read"),
    ],
    ids=["port", "host", "config", "key"],
)
def test_impossible_settings_are_named(archive, options, sentence):
    """Settings that no server can start with get one sentence."""
    assert refused(archive, *options).startswith(f"error: {sentence}")


def test_missing_and_corrupt_archives_are_named(archive, tmp_path):
    """Nothing starts without an archive, or with a damaged one."""
    missing, bad = tmp_path / "none.mar", tmp_path / "convnet.mar"
    assert refused(missing) == f"error: there is no archive {missing}; build it with: make archive"
    bad.write_bytes(archive.read_bytes()[:10_000])
    assert refused(bad).startswith(f"error: {bad} is damaged (File is not a zip file); build it again")


def test_archive_that_does_not_load_ends_the_server(archive, tmp_path):
    """A changed constant is found by both workers; the server exits with one sentence."""
    bad = tmp_path / "convnet.mar"
    with zipfile.ZipFile(archive) as mar, zipfile.ZipFile(bad, "w") as changed:
        for info in mar.infolist():
            data = mar.read(info)
            if info.filename == "model-config.yaml":
                data = data.replace(b"std: [0.", b"std: [1.")
            changed.writestr(info, data)
    line = refused(bad, "--port", str(free_port()))
    assert line.startswith(f"error: {bad} does not load: GoldenMismatch: golden image 0.png: expected 0")


def test_workers_compute_in_one_thread(archive):
    """Two processes with two arithmetic threads each would compete for two cores."""
    program = (
        "import sys, pathlib; from marctl.serve import served_copies; from marctl.serve.flask import app; "
        "served = served_copies.describe(pathlib.Path(sys.argv[1]));"
        "app.load(served, 1, explain=False); import torch; print(torch.get_num_threads())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(archive)],
        capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.stdout == "1\n"
