"""TorchServe's own tokens: requests without one are refused; this project's commands find theirs."""

import json
import os
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from bench.servers.stack import Stack
from marctl.client.client import Client
from marctl.client.errors import NotAllowed
from marctl.serve.torchserve.tokens import KEY_FILE, KeyFile, prepare
from tests.conftest import DIGITS, ROOT, Served, free_port, make, marctl
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.torchserve

REFUSED = "Token either incorrect, expired, or not provided correctly"
SHORT = "token_expiration_min=0.1\n"  # six seconds
EXPIRES = 6


def served(run, **variables) -> Served:
    """Start a server with tokens."""
    port = free_port()
    done = make("serve", RUN=str(run), PORT=str(port), TOKENS="on", **variables)
    assert done.returncode == 0, done.stderr
    return Served(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", port, run, done.stdout)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with tokens, one for all tests that do not damage it."""
    run = tmp_path_factory.mktemp("guarded")
    yield served(run)
    make("stop", RUN=str(run))


def test_client_for_python_sends_its_token(guarded):
    """With the token it gets answers; without, or with a wrong one, an error with the remedy."""
    with Client(guarded.inference, token=token(guarded.run)) as client:
        assert client.predict(DIGITS["2"]).label == "2"
    done = make("predict", URL=guarded.inference, IMAGE="tests/images/2.png", TOKEN=token(guarded.run))
    assert (done.returncode, done.stdout) == (0, "2\n")
    for wrong in (None, "wrong"):
        client = Client(guarded.inference, token=wrong)
        with client, pytest.raises(NotAllowed, match=r"`make token` prints"):
            client.predict(DIGITS["2"])


@pytest.fixture
def run(tmp_path):
    """A folder for a server of this test, which is stopped at the end in any case."""
    yield tmp_path / "run"
    make("stop", RUN=str(tmp_path / "run"))


@pytest.fixture
def short(tmp_path):
    """Settings with which a token is valid for six seconds."""
    file = tmp_path / "short.properties"
    file.write_text((ROOT / "config.properties").read_text() + SHORT)
    return str(file)


def token(run, kind: str = "inference") -> str:
    """Return the output of make token."""
    done = make("token", RUN=str(run), KIND=kind)
    assert done.returncode == 0, done.stderr
    [printed] = done.stdout.splitlines()
    return printed


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def put(url: str, key: str | None = None) -> requests.Response:
    """Send an image, with or without a token."""
    return requests.put(url, data=DIGITS["2"], headers=bearer(key) if key else {}, timeout=PATIENCE)


WRONG = {"none": {}, "wrong": bearer("x"), "no-bearer": {"Authorization": "x"}}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(
    ("method", "port", "path"),
    [
        ("PUT", "inference", "/predictions/convnet"),
        ("GET", "inference", "/ping"),
        ("GET", "management", "/models"),
        ("PUT", "management", "/models/convnet?min_worker=0&max_worker=0&synchronous=true"),
        ("POST", "management", "/workflows?url=x.war"),
        ("GET", "management", "/token?type=inference"),
    ],
    ids=["predict", "ping", "list", "scale", "workflow", "new-token"],
)
def test_nobody_is_answered_without_a_token(guarded, method, port, path, headers):
    """Without one, predictions, lists and scaling get 400 with the reason."""
    body = DIGITS["2"] if method == "PUT" else None
    url = getattr(guarded, port) + path
    reply = requests.request(method, url, data=body, headers=headers, timeout=PATIENCE)
    assert reply.status_code == 400
    assert REFUSED in reply.text


def test_token_lets_in(guarded):
    """The token from make token works; a second call prints the same, because it is still valid."""
    key = token(guarded.run)
    assert put(guarded.predictions, key).text == "2"
    assert token(guarded.run) == key


def test_each_token_opens_its_own_port(guarded):
    """A prediction token does not work for the management API, nor the other way round."""
    inference, management = token(guarded.run), token(guarded.run, "management")
    models = f"{guarded.management}/models"
    assert requests.get(models, headers=bearer(management), timeout=PATIENCE).json()["models"]
    assert requests.get(models, headers=bearer(inference), timeout=PATIENCE).status_code == 400
    assert put(guarded.predictions, management).status_code == 400
    new = f"{guarded.management}/token?type=inference"
    assert requests.get(new, headers=bearer(management), timeout=PATIENCE).status_code == 400


@pytest.mark.parametrize(("word", "printed"), [("try", "2"), ("list", '"modelName": "convnet"')])
def test_printed_lines_work(guarded, word, printed):
    """The output of make serve can be pasted: the token is read when the line runs."""
    [line] = [line for line in guarded.printed.splitlines() if line.split()[0] == word]
    command = line.strip().removeprefix(word).strip()
    # make passes its own flags to what it runs, including these tests.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    pipes = {"capture_output": True, "text": True}
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environ, check=True, **pipes)
    assert printed in done.stdout


def test_status_and_second_start_find_the_token(guarded):
    """Both check the workers, and say how to print a token."""
    for again in (make("status", RUN=str(guarded.run)),
                  make("serve", RUN=str(guarded.run), PORT=str(guarded.port), TOKENS="on")):  # fmt: skip
        assert again.returncode == 0, again.stderr
        assert "convnet 1.0: 2 of 2 workers ready" in again.stdout
        assert f"{KEY_FILE}; to print one: make token" in again.stdout


def test_health_check_finds_the_token(guarded, archive):
    """A container's health check finds its token; without the folder it prints what came."""
    for run, code in ((guarded.run, 0), (guarded.run / "none", 1)):
        done = marctl("healthcheck", archive, guarded.inference, "--run", run)
        assert done.returncode == code, done.stderr
    assert REFUSED in done.stderr


def test_open_key_file_is_refused(guarded):
    """A key file that others can read is refused: the error has its mode and the remedy."""
    file = guarded.run / "java" / KEY_FILE
    file.chmod(0o644)
    try:
        done = make("status", RUN=str(guarded.run))
    finally:
        file.chmod(0o600)
    assert done.returncode != 0
    assert f"the mode of {file} is 644; close it: chmod 600 {file}; for new ones: make" in done.stderr


def test_key_file_is_never_open(run):
    """From its creation no one else can read it, whatever the umask."""
    modes = set()
    words = ["make", "serve", f"RUN={run}", f"PORT={free_port()}", "TOKENS=on"]
    command = ["sh", "-c", 'umask 0 && exec "$@"', "-", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as starting:
        while starting.poll() is None:
            if (run / "java" / KEY_FILE).exists():
                modes.add(stat.S_IMODE((run / "java" / KEY_FILE).stat().st_mode))
    assert starting.returncode == 0
    assert modes == {0o600}


def test_new_key_file_takes_no_other_ones_place(tmp_path):
    """An existing file or link is replaced, not written to."""
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / KEY_FILE).symlink_to(other)
    assert prepare(tmp_path).stat().st_size == 0
    assert other.read_text() == "mine"


def test_stop_leaves_no_key(run):
    """The server stops like any other, and its tokens are deleted."""
    served(run)
    assert (run / "java" / KEY_FILE).exists()
    assert make("stop", RUN=str(run)).stdout == "stopped\n"
    assert not (run / "java" / KEY_FILE).exists()


def test_expired_tokens_are_replaced(run, short):
    """TorchServe refuses expired tokens; status and make token then get new ones."""
    server = served(run, PROPERTIES=short)
    old = token(run)
    wait_until(lambda: put(server.predictions, old).status_code == 400)
    assert make("status", RUN=str(run)).returncode == 0
    wait_until(lambda: put(server.predictions, token(run)).text == "2")
    assert put(server.predictions, old).status_code == 400


def test_many_who_find_it_expired_get_one_token(run, short):
    """A new token invalidates the old one, so concurrent callers share the first new one."""
    server = served(run, PROPERTIES=short)
    keys = KeyFile(run / "java" / KEY_FILE, server.management)
    old = keys.token("inference")
    wait_until(lambda: put(server.predictions, old).status_code == 400)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(keys.token, ["inference"] * 8))
    assert len(found) == 1
    assert old not in found


@pytest.mark.nginx
def test_door_passes_tokens_and_keeper_has_its_own(run, short):
    """Without a token clients get TorchServe's 400; readiness stays correct after tokens expire."""
    up = opened(run, PROPERTIES=short)
    refused = put(up.predictions)
    assert (refused.status_code, refused.json()["type"]) == (400, "InvalidKeyException")
    old = token(run)
    wait_until(lambda: put(up.predictions, old).status_code == 400)
    time.sleep(EXPIRES)  # the supervisor's second one has expired, too
    wait_until(lambda: up.is_ready)
    wait_until(lambda: put(up.predictions, token(run)).text == "2")


@pytest.mark.nginx
def test_new_server_has_new_tokens(run):
    """After TorchServe is restarted, it is ready, the old token is invalid and the new one works."""
    up = opened(run)
    old = token(run)
    assert put(up.predictions, old).text == "2"
    up.java.kill()
    wait_until(lambda: up.status("/health/live") == 503)
    wait_until(lambda: up.is_ready)
    assert put(up.predictions, old).status_code == 400
    assert put(up.predictions, token(run)).text == "2"


def opened(run, **variables) -> Stack:
    """Open a reverse proxy to a server with tokens."""
    port, door = free_port(), free_port()
    ports = {"PORT": str(port), "DOOR": str(door), "RATE": "100000"}
    done = make("up", RUN=str(run), TOKENS="on", **ports, **variables)
    assert done.returncode == 0, done.stderr
    assert f'-H "Authorization: Bearer $(make token RUN={run})"' in done.stdout
    return Stack(door, port, run)


def test_without_tokens_nothing_is_kept(server):
    """There is no key file, and make token gets a sentence."""
    assert not (server.run / "java" / KEY_FILE).exists()
    assert json.loads((server.run / "server.json").read_text())["keys"] is None
    done = make("token", RUN=str(server.run))
    assert done.returncode != 0
    assert "error: this server does not use tokens; to turn them on: make stop serve TOKENS=on" in done.stderr


def test_server_without_tokens_is_not_one_with(server):
    """If the server runs with other settings than requested, the command fails."""
    done = make("serve", RUN=str(server.run), PORT=str(server.port), TOKENS="on")
    assert done.returncode != 0
    assert "not started with tokens; stop the running server first: make stop" in done.stderr


@pytest.mark.parametrize(
    ("target", "variables", "sentence"),
    [
        ("serve", {"TOKENS": "maybe"}, "error: TOKENS=maybe is not known; use TOKENS=on or TOKENS=off"),
        ("token", {"KIND": "all"}, "error: KIND=all is not known; use KIND=inference or KIND=management"),
        ("token", {}, "error: no server is running; start one with: make serve TOKENS=on"),
        ("flask", {"TOKENS": "on"}, "the Flask server has no tokens and listens on this machine only"),
    ],
    ids=["other-word", "other-kind", "no-server", "flask"],
)
def test_what_cannot_be_is_said(tmp_path, target, variables, sentence):
    """It is one sentence with the remedy, and nothing is started."""
    done = make(target, RUN=str(tmp_path / "run"), **variables)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
