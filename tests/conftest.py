"""What the tests share: the real archive, opened in this process and behind a real TorchServe."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

import health
from contract import Contract
from cpp_program import Program
from engine import Engine
from front_door import PLACES, PROGRAM, FrontDoor, Opening
from health import Health
from keeper import THROUGH
from ports import why_not
from served_copies import describe
from settings import PORT_KEYS, body_limit

ROOT = Path(__file__).parent.parent
IMAGES = Path(__file__).parent / "images"
MAKE_VARIABLES = set(re.findall(r"^([A-Z_]+) *=", (ROOT / "Makefile").read_text(), re.MULTILINE))
NO_COMPILER = shutil.which("g++") is None
needs_compiler = pytest.mark.skipif(NO_COMPILER, reason="AOTInductor needs: apt-get install g++")
# A test run in the background is started without Ctrl-C, and would hand that on to all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# `make test` hands its flags and its depth on; a test runs make as a person does, at depth 0.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)
# Of the engine in this process; servers are told by their own.
os.environ["EXPLAIN"] = "1"
DIGITS = {str(digit): (IMAGES / f"{digit}.png").read_bytes() for digit in range(10)}


@dataclass(frozen=True)
class Served:
    """A TorchServe that a test started: its addresses, its folder, what its start printed."""

    inference: str
    management: str
    port: int
    run: Path
    printed: str

    @property
    def predictions(self) -> str:
        """The address that answers pictures."""
        return f"{self.inference}/predictions/convnet"


def make(
    *arguments: str, cwd: Path = ROOT, within: Iterable[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run make as a person would: its own variables by the command line, others by the environment.

    `within` are words before the command, such as those of a limit to its memory.
    """
    own = [f"{key}={value}" for key, value in variables.items() if key in MAKE_VARIABLES]
    environ = {key: value for key, value in variables.items() if key not in MAKE_VARIABLES}
    inherited = {key: value for key, value in os.environ.items() if key != "EXPLAIN"}
    command = [*within, "make", *arguments, *own]
    return subprocess.run(
        command, cwd=cwd, env=inherited | environ, capture_output=True, text=True, timeout=300, check=False
    )


def export(*targets: str) -> subprocess.CompletedProcess[str]:
    """Run make for what lies in exported/: one test run at a time, for two files of tests run at once."""
    with (ROOT / "Makefile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make(*targets)


def free_port() -> int:
    """Return the first of five ports that are free, at random: test runs do not meet."""
    while True:
        first = random.randrange(20_000, 30_000)  # noqa: S311 no secret
        if not any(why_not(port) for port in range(first, first + len(PORT_KEYS))):
            return first


@pytest.fixture(scope="session")
def archive() -> Path:
    """The archive that `make archive` built."""
    built = ROOT / "model_store" / "convnet.mar"
    assert built.exists(), "build it first: make archive"
    return built


@pytest.fixture(scope="session")
def engine(archive):
    """The archive, opened in this process."""
    with Engine(archive) as opened:
        yield opened


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The contract that the archive carries."""
    return Contract.from_file(ROOT / "model" / "model-config.yaml")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real TorchServe with the archive, one for all tests that do not harm it."""
    run = tmp_path_factory.mktemp("run")
    port = free_port()
    done = make("serve", RUN=str(run), PORT=str(port), EXPLAIN="1")
    assert done.returncode == 0, done.stderr
    yield Served(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", port, run, done.stdout)
    make("stop", RUN=str(run))


@pytest.fixture(scope="session")
def flask_server(archive):
    """A real Flask server with the archive, one for all tests that do not harm it."""
    from flask_process import flask_of  # it needs this module

    with flask_of(archive, EXPLAIN="1") as running:
        yield running


@pytest.fixture(scope="session")
def door(server, archive, tmp_path_factory):
    """The address of a front door before the shared TorchServe; None without nginx."""
    if shutil.which(PROGRAM, path=PLACES) is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="door-test-") as folder:
        scratch = Path(folder)
        scratch.chmod(THROUGH)
        served = describe(archive)
        seen = Health(lambda: [served])
        seen.saw(None)
        seen._seen = float("inf")  # for ever: nobody looks at it again
        opening = Opening(
            free_port(), server.inference, server.inference, scratch, body_limit(ROOT / "config.properties"),
            answer=60, rate=100_000, connections=1000,
        )  # fmt: skip
        health.serve(seen, opening.health)
        opened = FrontDoor(tmp_path_factory.mktemp("door"))
        opened.open(opening)
        yield opening.address
        opened.close()


@pytest.fixture(scope="session")
def everywhere(server, door, flask_server) -> dict[str, str]:
    """The addresses of all servers of the one archive; who asks all of them expects one answer."""
    addresses = {"TorchServe": server.inference, "front door": door, "Flask": flask_server.url}
    return {name: address for name, address in addresses.items() if address is not None}


@pytest.fixture(scope="session")
def checkout_in():
    """A function that copies the files that git knows into a folder, with this environment."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]

    def copy_to(target: Path) -> Path:
        known = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for file in known.splitlines():
            if (ROOT / file).is_file():  # git lists what was deleted and not yet committed, too
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, target / file)
        (target / ".venv").symlink_to((ROOT / ".venv").resolve())
        return target

    return copy_to


@pytest.fixture(scope="session")
def _compiled():
    done = export("cpp")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def program(_compiled, tmp_path):
    """What `make cpp` compiled."""
    return Program(tmp_path)


@pytest.fixture(scope="session")
def scripted() -> Path:
    """The exported ConvNet."""
    done = export("torchscript")
    assert done.returncode == 0, done.stderr
    return ROOT / "exported" / "convnet.scripted.pt"
