"""Real archives and servers, one of each for all tests that do not damage them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

from marctl.sandbox import sandbox
from marctl.serve.front import health
from marctl.serve.front.health import Health
from marctl.serve.front.nginx import PLACES, PROGRAM, Opening, Proxy
from marctl.serve.front.supervisor import THROUGH
from marctl.serve.served_copies import describe
from marctl.serve.torchserve.settings import body_limit
from marctl.verify import examination, look
from tests.conftest import ROOT, Served, export, free_port, make
from tests.support.cpp_program import Program
from tests.support.flask_process import flask_of
from tests.support.rows import Engine
from tests.support.stacks import of_folder


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


@pytest.fixture
def parsed_here(monkeypatch):
    """Parse archive members in this process: the result is the same, and torch is imported only once."""
    run_apart = sandbox.run

    def run(program: Path, folder: Path, request: bytes, *rest) -> bytes:
        if program != examination.LOOK:
            return run_apart(program, folder, request, *rest)
        answer = io.StringIO()
        with monkeypatch.context() as patched, contextlib.redirect_stdout(answer), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patched.setattr(sys, "argv", [str(program), str(folder)])
            patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(request)))
            look.main()
        return answer.getvalue().encode()

    monkeypatch.setattr(sandbox, "run", run)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real TorchServe with the archive, one for all tests that do not damage it."""
    run = tmp_path_factory.mktemp("run")
    port = free_port()
    done = make("serve", RUN=str(run), PORT=str(port), EXPLAIN="1")
    assert done.returncode == 0, done.stderr
    yield Served(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", port, run, done.stdout)
    make("stop", RUN=str(run))


@pytest.fixture(scope="session")
def flask_server(archive):
    """A real Flask server with the archive, one for all tests that do not damage it."""
    with flask_of(archive, EXPLAIN="1") as running:
        yield running


@pytest.fixture(scope="session")
def door(server, archive, tmp_path_factory):
    """The address of a reverse proxy in front of the shared TorchServe; None without nginx."""
    if shutil.which(PROGRAM, path=PLACES) is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="door-test-") as folder:
        scratch = Path(folder)
        scratch.chmod(THROUGH)
        served = describe(archive)
        seen = Health(lambda: [served])
        seen.saw(None)
        seen._seen = float("inf")  # always fresh: nothing checks it again
        opening = Opening(
            free_port(), server.inference, server.inference, scratch, body_limit(ROOT / "config.properties"),
            answer=60, rate=100_000, connections=1000,
        )  # fmt: skip
        health.serve(seen, opening.health)
        opened = Proxy(tmp_path_factory.mktemp("door"))
        opened.open(opening)
        yield opening.address
        opened.close()


@pytest.fixture(scope="session")
def everywhere(server, door, flask_server) -> dict[str, str]:
    """The addresses of all servers of the one archive; all must give the same answers."""
    addresses = {"TorchServe": server.inference, "reverse proxy": door, "Flask": flask_server.url}
    return {name: address for name, address in addresses.items() if address is not None}


@pytest.fixture(scope="session")
def _compiled():
    done = export("cpp")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def program(_compiled, tmp_path):
    """The program that `make cpp` compiled."""
    return Program(tmp_path)


@pytest.fixture(scope="session")
def scripted() -> Path:
    """The exported ConvNet."""
    done = export("torchscript")
    assert done.returncode == 0, done.stderr
    return ROOT / "exported" / "convnet.scripted.pt"


@pytest.fixture
def run(tmp_path):
    """A folder for a server; what a failed test leaves in it is killed, whatever make stop thinks."""
    folder = tmp_path / "run"
    yield folder
    make("stop", RUN=str(folder))
    for one in of_folder(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
