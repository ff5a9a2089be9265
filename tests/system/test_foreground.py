"""marctl serve --foreground, as a container's first process, and the health check."""

import contextlib
import json
import signal
import subprocess
import zipfile

import psutil
import pytest

from classifier.canonical import MANIFEST
from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from classifier.golden import FOLDER as GOLDEN_FOLDER
from marctl.archive.mar import read_manifest
from marctl.serve.processes import lives
from tests.conftest import DIGITS, MARCTL, ROOT, free_port, marctl

pytestmark = pytest.mark.torchserve


@pytest.fixture
def run(tmp_path, archive):
    """A function that starts `marctl serve --foreground`; whatever it leaves behind is killed."""
    started = []

    def start() -> subprocess.Popen[str]:
        command = [*MARCTL, "serve", "--foreground", "--run", tmp_path]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = ["--port", str(free_port()), archive]
        started.append(subprocess.Popen([*command, *options], cwd=ROOT, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
    subprocess.run([*MARCTL, "stop", "--run", tmp_path], check=True)


def wait_for(process, text: str) -> None:
    """Read the output up to a line."""
    assert any(text in line for line in process.stdout), process.stderr.read()


def java_of(folder) -> psutil.Process:
    """Return the TorchServe process recorded in the folder."""
    return psutil.Process(json.loads((folder / "server.json").read_text())["pid"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_signal_stops_torchserve_and_is_no_error(run, tmp_path, number):
    """It names the signal; TorchServe and its workers are gone before it exits."""
    process = run()
    wait_for(process, "ready after")
    java = java_of(tmp_path)
    family = [java, *java.children(recursive=True)]
    assert len(family) == 3
    process.send_signal(number)
    printed, errors = process.communicate()
    assert (process.returncode, printed, errors) == (0, f"stopped by {number.name}\n", "")
    assert not any(lives(each) for each in family)


def test_signal_while_it_starts_stops_torchserve(run, tmp_path):
    """A container that is stopped early shuts down as cleanly as a running one."""
    process = run()
    java = None
    while java is None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            java = java_of(tmp_path)
    process.terminate()
    printed, errors = process.communicate()
    assert (process.returncode, printed, errors) == (0, "stopped by SIGTERM\n", "")
    assert not lives(java)


def test_end_of_torchserve_is_an_error(run, tmp_path):
    """If TorchServe dies, the command exits too and quotes its log."""
    process = run()
    wait_for(process, "ready after")
    java_of(tmp_path).kill()
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith("error: TorchServe ended by itself")
    assert "WORKER_STARTED -> WORKER_MODEL_LOADED" in errors


def test_second_run_in_a_folder_is_refused(run, tmp_path):
    """The error names the running process, which is not affected."""
    first = run()
    wait_for(first, "ready after")
    java = java_of(tmp_path)
    second = run()
    _, errors = second.communicate()
    assert second.returncode == 1
    assert f"error: TorchServe is already running here, as process {java.pid}" in errors
    assert java.is_running()


def healthcheck(*arguments) -> subprocess.CompletedProcess[str]:
    return marctl("healthcheck", *arguments)


def test_health_is_the_right_answer(server, archive):
    """A server that labels the golden image correctly is healthy, and nothing is printed."""
    done = healthcheck(archive, server.inference)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_wrong_answer_is_not_healthy(server, archive, tmp_path):
    """Docker's record of the check has the expected and the actual answer."""
    manifest = json.dumps(read_manifest(archive))
    answers = json.dumps({"pictures": {"3.png": {"label": "4"}}})
    members = {MANIFEST: manifest, GOLDEN_ANSWERS: answers, f"{GOLDEN_FOLDER}/3.png": DIGITS["3"]}
    wrong = tmp_path / "wrong.mar"
    with zipfile.ZipFile(wrong, "w") as mar:
        for name, data in members.items():
            mar.writestr(name, data)
    done = healthcheck(wrong, server.inference)
    assert done.returncode == 1
    assert "must answer the golden image 3.png with 4, got 200: 3" in done.stderr


@pytest.mark.parametrize(
    ("archive_name", "sentence"),
    [("model_store/convnet.mar", "does not answer"), ("none.mar", "there is no archive none.mar")],
    ids=["no server", "no archive"],
)
def test_no_answer_is_not_healthy(archive_name, sentence):
    """It is one sentence without a traceback."""
    done = healthcheck(ROOT / archive_name if "/" in archive_name else archive_name, "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
