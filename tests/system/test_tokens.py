"""TorchServe's own tokens: who has none is not answered; what this project asks with finds its own."""

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
    """Start a server that wants tokens."""
    port = free_port()
    done = make("serve", RUN=str(run), PORT=str(port), TOKENS="on", **variables)
    assert done.returncode == 0, done.stderr
    return Served(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", port, run, done.stdout)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that wants tokens, one for all tests that do not harm it."""
    run = tmp_path_factory.mktemp("guarded")
    yield served(run)
    make("stop", RUN=str(run))


def test_client_for_python_sends_its_token(guarded):
    """With it the client is answered; without, or with another one, it is told what to do."""
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
    """A folder for a server of this test, stopped at the end whatever happened."""
    yield tmp_path / "run"
    make("stop", RUN=str(tmp_path / "run"))


@pytest.fixture
def short(tmp_path):
    """Settings by which a token is good for six seconds."""
    file = tmp_path / "short.properties"
    file.write_text((ROOT / "config.properties").read_text() + SHORT)
    return str(file)


def token(run, kind: str = "inference") -> str:
    """Return what make token prints."""
    done = make("token", RUN=str(run), KIND=kind)
    assert done.returncode == 0, done.stderr
    [printed] = done.stdout.splitlines()
    return printed


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def put(url: str, key: str | None = None) -> requests.Response:
    """Send an image, with a token or without."""
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
    """No prediction, no list, no worker more or less; 400 and why."""
    body = DIGITS["2"] if method == "PUT" else None
    url = getattr(guarded, port) + path
    reply = requests.request(method, url, data=body, headers=headers, timeout=PATIENCE)
    assert reply.status_code == 400
    assert REFUSED in reply.text


def test_token_lets_in(guarded):
    """What make token prints; asked for twice it is the same: a good one is not replaced."""
    key = token(guarded.run)
    assert put(guarded.predictions, key).text == "2"
    assert token(guarded.run) == key


def test_each_token_opens_its_own_port(guarded):
    """Who may ask for predictions may not manage, and the other way round."""
    inference, management = token(guarded.run), token(guarded.run, "management")
    models = f"{guarded.management}/models"
    assert requests.get(models, headers=bearer(management), timeout=PATIENCE).json()["models"]
    assert requests.get(models, headers=bearer(inference), timeout=PATIENCE).status_code == 400
    assert put(guarded.predictions, management).status_code == 400
    new = f"{guarded.management}/token?type=inference"
    assert requests.get(new, headers=bearer(management), timeout=PATIENCE).status_code == 400


@pytest.mark.parametrize(("word", "printed"), [("try", "2"), ("list", '"modelName": "convnet"')])
def test_printed_lines_work(guarded, word, printed):
    """What make serve prints can be pasted: the token is read when the line runs."""
    [line] = [line for line in guarded.printed.splitlines() if line.split()[0] == word]
    command = line.strip().removeprefix(word).strip()
    # make hands its own flags to what it runs, these tests among them.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    pipes = {"capture_output": True, "text": True}
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environ, check=True, **pipes)
    assert printed in done.stdout


def test_status_and_second_start_find_the_token(guarded):
    """Both look at the workers, and say what was wanted."""
    for again in (make("status", RUN=str(guarded.run)),
                  make("serve", RUN=str(guarded.run), PORT=str(guarded.port), TOKENS="on")):  # fmt: skip
        assert again.returncode == 0, again.stderr
        assert "convnet 1.0: 2 of 2 workers ready" in again.stdout
        assert f"{KEY_FILE}; to see one: make token" in again.stdout


def test_health_check_finds_the_token(guarded, archive):
    """What asks a container for its health; without the folder it has no token, and says what came."""
    for run, code in ((guarded.run, 0), (guarded.run / "none", 1)):
        done = marctl("healthcheck", archive, guarded.inference, "--run", run)
        assert done.returncode == code, done.stderr
    assert REFUSED in done.stderr


def test_open_key_file_is_refused(guarded):
    """A token that others can read is none: the sentence says the mode and the remedy."""
    file = guarded.run / "java" / KEY_FILE
    file.chmod(0o644)
    try:
        done = make("status", RUN=str(guarded.run))
    finally:
        file.chmod(0o600)
    assert done.returncode != 0
    assert f"the mode of {file} is 644; close it: chmod 600 {file}; for new ones: make" in done.stderr


def test_key_file_is_never_open(run):
    """From its first moment nobody else can read it, however open a user's new files are."""
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
    """What lies there already, a link too, is put away and not written to."""
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / KEY_FILE).symlink_to(other)
    assert prepare(tmp_path).stat().st_size == 0
    assert other.read_text() == "mine"


def test_stop_leaves_no_key(run):
    """Stopped as any other; the tokens are gone with the server that knew them."""
    served(run)
    assert (run / "java" / KEY_FILE).exists()
    assert make("stop", RUN=str(run)).stdout == "stopped\n"
    assert not (run / "java" / KEY_FILE).exists()


def test_expired_tokens_are_replaced(run, short):
    """After their time TorchServe takes them from nobody; status, and make token, then get new ones."""
    server = served(run, PROPERTIES=short)
    old = token(run)
    wait_until(lambda: put(server.predictions, old).status_code == 400)
    assert make("status", RUN=str(run)).returncode == 0
    wait_until(lambda: put(server.predictions, token(run)).text == "2")
    assert put(server.predictions, old).status_code == 400


def test_many_who_find_it_expired_get_one_token(run, short):
    """A new token ends the one before: who comes second takes the first one's, and does not ask again."""
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
    """Who has no token gets TorchServe's 400; what is told of ready is true beyond the tokens' time."""
    up = opened(run, PROPERTIES=short)
    refused = put(up.predictions)
    assert (refused.status_code, refused.json()["type"]) == (400, "InvalidKeyException")
    old = token(run)
    wait_until(lambda: put(up.predictions, old).status_code == 400)
    time.sleep(EXPIRES)  # the keeper's second one has expired, too
    wait_until(lambda: up.is_ready)
    wait_until(lambda: put(up.predictions, token(run)).text == "2")


@pytest.mark.nginx
def test_new_server_has_new_tokens(run):
    """TorchServe dies and is started again: it is ready, the old token is none, the new one lets in."""
    up = opened(run)
    old = token(run)
    assert put(up.predictions, old).text == "2"
    up.java.kill()
    wait_until(lambda: up.status("/health/live") == 503)
    wait_until(lambda: up.is_ready)
    assert put(up.predictions, old).status_code == 400
    assert put(up.predictions, token(run)).text == "2"


def opened(run, **variables) -> Stack:
    """Open a reverse proxy to a server that wants tokens."""
    port, door = free_port(), free_port()
    ports = {"PORT": str(port), "DOOR": str(door), "RATE": "100000"}
    done = make("up", RUN=str(run), TOKENS="on", **ports, **variables)
    assert done.returncode == 0, done.stderr
    assert f'-H "Authorization: Bearer $(make token RUN={run})"' in done.stdout
    return Stack(door, port, run)


def test_without_tokens_nothing_is_kept(server):
    """No key file, and a sentence for who asks for a token."""
    assert not (server.run / "java" / KEY_FILE).exists()
    assert json.loads((server.run / "server.json").read_text())["keys"] is None
    done = make("token", RUN=str(server.run))
    assert done.returncode != 0
    assert "error: this server wants no tokens; for one that does: make stop serve TOKENS=on" in done.stderr


def test_server_without_tokens_is_not_one_with(server):
    """A server that runs otherwise than was asked for is no success."""
    done = make("serve", RUN=str(server.run), PORT=str(server.port), TOKENS="on")
    assert done.returncode != 0
    assert "not started with tokens; first: make stop" in done.stderr


@pytest.mark.parametrize(
    ("target", "variables", "sentence"),
    [
        ("serve", {"TOKENS": "maybe"}, "error: TOKENS=maybe is not known; say TOKENS=on or TOKENS=off"),
        ("token", {"KIND": "all"}, "error: KIND=all is not known; say KIND=inference or KIND=management"),
        ("token", {}, "error: there is no server to let you in; start it with: make serve TOKENS=on"),
        ("flask", {"TOKENS": "on"}, "Flask has no tokens; leave TOKENS out"),
    ],
    ids=["other-word", "other-kind", "no-server", "flask"],
)
def test_what_cannot_be_is_said(tmp_path, target, variables, sentence):
    """One sentence with the remedy, and nothing is started."""
    done = make(target, RUN=str(tmp_path / "run"), **variables)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
