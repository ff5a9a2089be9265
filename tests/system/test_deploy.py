"""make deploy replaces the running version with another one, under load."""

import contextlib
import json
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from bench.load.clients import Clients
from bench.servers.stack import Stack
from classifier import canonical
from classifier.canonical import MANIFEST
from marctl.serve.front import supervisor
from marctl.serve.front.slots import twin_of
from marctl.serve.ports import why_not
from marctl.serve.processes import lives
from marctl.serve.torchserve.instance import Instance
from tests.conftest import DIGITS, ROOT, free_port, make
from tests.support.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.nginx]

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Version 1.0 answers with digits and 2.0 with words, so each answer shows its version."""
    folder = tmp_path_factory.mktemp("archives")
    contract = (ROOT / "model" / "model-config.yaml").read_text()
    digits = next(line for line in contract.splitlines() if line.startswith("labels:"))
    config = folder / "model-config.yaml"
    config.write_text(contract.replace(digits, f"labels: {json.dumps(WORDS)}"))
    new = folder / "new" / "convnet.mar"
    new.parent.mkdir()
    done = make("archive", MAR=str(new), VERSION="2.0", CONFIG=str(config))
    assert done.returncode == 0, done.stderr
    return ROOT / "model_store" / "convnet.mar", new


@contextlib.contextmanager
def serving(run):
    """Serve version 1.0 with make up."""
    running = Stack(free_port(), free_port(), run)
    done = make("up", RUN=str(run), PORT=str(running.port), DOOR=str(running.door), RATE="100000")
    assert done.returncode == 0, done.stderr
    try:
        yield running
    finally:
        make("stop", RUN=str(run))


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A stack for the tests that leave version 1.0 serving."""
    with serving(tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.fixture
def own_up(tmp_path):
    """A stack for one test that changes it."""
    with serving(tmp_path / "run") as running:
        yield running


def deploy(up: Stack, archive) -> subprocess.CompletedProcess[str]:
    """Run what make deploy runs, with an archive that exists already."""
    return make("deploy", RUN=str(up.run), MARS=str(archive))


def answer(up: Stack) -> str:
    """Return the answer to an image of a two."""
    return requests.put(up.predictions, data=DIGITS["2"], timeout=PATIENCE).text


def labels(up: Stack) -> list[str]:
    """Return the labels that the web page gets."""
    [model] = requests.get(f"{up.url}/page/served.json", timeout=PATIENCE).json()["models"]
    return model["labels"]


def twin(up: Stack) -> Stack:
    """Return the stack in the second slot, to look at its processes."""
    return Stack(up.door, up.port, twin_of(up.run).folder)


class Kept:
    """A client on one connection; it records the answers to a two, and any failures."""

    def __init__(self, up: Stack) -> None:
        self.answers: list[str] = []
        self.failed: list[str] = []
        self._up, self._going = up, True

    def send(self) -> None:
        """Send until stopped."""
        with requests.Session() as session:
            while self._going:
                try:
                    reply = session.put(self._up.predictions, data=DIGITS["2"], timeout=PATIENCE)
                    self.answers.append(reply.text)
                except requests.RequestException as error:
                    self.failed.append(str(error))

    def stop(self) -> None:
        """Stop after the image in progress."""
        self._going = False


@contextlib.contextmanager
def kept_connections(up: Stack, count: int = 8):
    """Clients that send one image after another, each on its own connection."""
    clients = [Kept(up) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        for client in clients:
            pool.submit(client.send)
        try:
            yield clients
        finally:
            for client in clients:
                client.stop()


def test_new_version_takes_over_without_a_failed_request(own_up, archives):
    """Every request gets the old version's answer up to one moment, and the new one's from then on.

    The new one is then restarted if it dies, and the old one can be deployed again.
    """
    old, new = archives
    old_java = own_up.java
    strangers = Clients(own_up.door, DIGITS, count=8, others=WORDS)
    with kept_connections(own_up) as clients, strangers:
        done = deploy(own_up, new)
        seen = [len(client.answers) for client in clients]
        wait_until(lambda: all(len(client.answers) > n + 10 for client, n in zip(clients, seen, strict=True)))
    assert done.returncode == 0, done.stderr
    assert "convnet 2.0 has replaced convnet 1.0" in done.stdout
    for client in clients:
        assert client.failed == []
        before = client.answers.count("2")
        assert client.answers == ["2"] * before + ["two"] * (len(client.answers) - before)
        assert 10 < before < len(client.answers) - 10
    assert (strangers.wrong, dict(strangers.failed)) == ([], {})
    assert labels(own_up) == list(WORDS)
    assert not lives(old_java)
    assert "convnet 2.0: 2 of 2 workers ready" in make("status", RUN=str(own_up.run)).stdout

    twin(own_up).java.kill()
    wait_until(lambda: own_up.status("/health/live") == 503)
    wait_until(lambda: own_up.is_ready)
    assert answer(own_up) == "two"

    with ThreadPoolExecutor() as pool:
        back = pool.submit(deploy, own_up, old)
        wait_until(lambda: Instance(own_up.run).running() is not None)
        assert "error: another deployment is in progress" in deploy(own_up, new).stderr
    assert back.result().returncode == 0, back.result().stderr
    assert answer(own_up) == "2"
    assert labels(own_up) == list(DIGITS)
    assert twin_of(own_up.run).running() is None


def rewritten(archive, target, changes):
    """Write an archive again with changed members but its old records; return its path."""
    with zipfile.ZipFile(archive) as mar:
        members = {name: mar.read(name) for name in mar.namelist()}
    for name, change in changes.items():
        before, members[name] = members[name], change(members[name])
        assert members[name] != before
    target.parent.mkdir()
    with target.open("wb") as file:
        canonical.write(members, json.loads(members[canonical.PROVENANCE])["created"], file)
    return target


BAD = {
    "weights": ("runtime.onnx", lambda data: data[:-100] + bytes(100)),
    "answers": ("golden.json", lambda data: data.replace(b'"label": "two"', b'"label": "one"')),
}


@pytest.fixture(params=BAD)
def bad(request, archives, tmp_path):
    """A version that fails its checks: changed weights, or the answers of another model."""
    member, change = BAD[request.param]
    return rewritten(archives[1], tmp_path / "bad" / "convnet.mar", {member: change})


def test_version_that_does_not_prove_itself_never_answers(up, bad):
    """It gets no request, and make deploy reports why."""
    java = up.java
    with Clients(up.door, DIGITS, count=8) as clients:
        done = deploy(up, bad)
    assert done.returncode != 0
    assert "error: convnet 2.0 failed its checks, convnet 1.0 keeps serving; the cause: " in done.stderr
    assert (clients.wrong, dict(clients.failed)) == ([], {})
    assert lives(java)
    assert twin_of(up.run).running() is None
    assert up.is_ready


def test_version_that_dies_after_the_change_is_taken_back(up, archives):
    """While the previous version is on standby, the proxy switches back to it."""
    with ThreadPoolExecutor() as pool:
        deploying = pool.submit(deploy, up, archives[1])
        wait_until(lambda: answer(up) == "two")
        for process in [*twin(up).workers, twin(up).java]:
            process.kill()
        wait_until(lambda: answer(up) == "2")
    assert "convnet 1.0 keeps serving" in deploying.result().stderr
    assert up.is_ready


def test_stop_ends_a_deployment(own_up, archives):
    """Nothing of either version is left, and make deploy reports why."""
    with ThreadPoolExecutor() as pool:
        deploying = pool.submit(deploy, own_up, archives[1])
        wait_until(lambda: twin_of(own_up.run).running() is not None)
        javas = [own_up.java, twin(own_up).java]
        assert make("stop", RUN=str(own_up.run)).stdout.strip() == "stopped"
    assert deploying.result().returncode != 0
    assert not any(lives(java) for java in javas)
    assert why_not(own_up.door) is None


def test_other_model_is_no_version(up, archives, tmp_path):
    """A model with another name would leave the clients without theirs."""
    named = {MANIFEST: lambda data: data.replace(b'"modelName": "convnet"', b'"modelName": "digits"')}
    done = deploy(up, rewritten(archives[1], tmp_path / "other" / "digits.mar", named))
    assert "error: convnet would no longer be served" in done.stderr
    assert answer(up) == "2"


def test_without_a_front_door_there_is_nothing_to_replace(tmp_path):
    """The error says what to start first."""
    done = make("deploy", RUN=str(tmp_path))
    assert done.returncode != 0
    assert "error: there is no server to deploy to; start one with: make up" in done.stderr


def test_nobody_else_can_ask_for_it(up):
    """The socket for deployments is in a private folder of the user."""
    state = supervisor.kept_in(Instance(up.run).folder)
    assert state is not None
    assert state.control.stat().st_mode & 0o077 == 0
