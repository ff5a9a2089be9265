"""What all tests share: this checkout, its commands, copies of it, and the markers."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from classifier.contract import Contract
from marctl.serve.ports import why_not
from marctl.serve.torchserve.settings import PORT_KEYS
from tests.support.programs import STARTED_BY, missing
from tests.support.waiting import COMMAND

ROOT = Path(__file__).parent.parent
IMAGES = Path(__file__).parent / "images"
# The command, as a user runs it in this environment.
MARCTL = [sys.executable, "-P", "-m", "marctl"]
# The Makefile's variables.
MAKE_VARIABLES = set(
    re.search(r"^override VARIABLES := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    .replace("\\", "")
    .split()
)
# A background job is started with SIGINT ignored, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# `make test` passes on its flags and depth; a test runs make as a user does, at depth 0.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)
# For the engine in this process; servers get their own setting.
os.environ["EXPLAIN"] = "1"
# A command prefix: root can read every file unless these capabilities are dropped.
RIGHTS = "-dac_override,-dac_read_search"
WITHOUT_RIGHTS = ("setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}") if os.geteuid() == 0 else ()
DIGITS = {str(digit): (IMAGES / f"{digit}.png").read_bytes() for digit in range(10)}


@pytest.hookimpl(tryfirst=True)  # before -m selects by them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with what its fixtures start."""
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            for marker in STARTED_BY.get(fixture, ()):
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing here, and name the program; .ci/run allows no skips."""
    for marker in item.iter_markers():
        if (reason := missing(marker.name)) is not None:
            pytest.skip(reason)


@dataclass(frozen=True)
class Served:
    """A TorchServe started by a test: its addresses, its run folder and what it printed at startup."""

    inference: str
    management: str
    port: int
    run: Path
    printed: str

    @property
    def predictions(self) -> str:
        """The address to send images to."""
        return f"{self.inference}/predictions/convnet"


def make(
    *arguments: str, cwd: Path = ROOT, within: Iterable[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run make as a user would: Makefile variables on the command line, others in the environment.

    `within` is a command prefix, such as one that limits memory.
    """
    own = [f"{key}={value}" for key, value in variables.items() if key in MAKE_VARIABLES]
    environ = {key: value for key, value in variables.items() if key not in MAKE_VARIABLES}
    inherited = {key: value for key, value in os.environ.items() if key != "EXPLAIN"}
    command = [*within, "make", *arguments, *own]
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited | environ,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


def marctl(*words: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run marctl as a user would, with these environment variables."""
    inherited = {key: value for key, value in os.environ.items() if key != "EXPLAIN"}
    command = [*MARCTL, *words]
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


def environment_in(checkout: Path) -> None:
    """Create an environment in a checkout: this one's packages, but the checkout's own code."""
    venv.create(checkout / ".venv", symlinks=True)
    packages = Path(sysconfig.get_path("purelib"))
    own = checkout / ".venv" / packages.relative_to(sys.prefix)
    code = [
        str(checkout / "handler"),
        str(checkout / "src"),
        f"import site; site.addsitedir({str(packages)!r})",
    ]
    (own / "checkout.pth").write_text("\n".join(code) + "\n")
    for script in Path(sys.prefix, "bin").iterdir():
        target = checkout / ".venv" / "bin" / script.name
        if script.is_file() and not target.exists():
            text = script.read_bytes()
            text = text.replace(sys.prefix.encode(), str(checkout / ".venv").encode(), 1)
            target.write_bytes(text)
            target.chmod(0o755)
    for stamp in Path(sys.prefix).glob("*.installed"):
        (checkout / ".venv" / stamp.name).touch()


def export(*targets: str) -> subprocess.CompletedProcess[str]:
    """Run make for files in exported/, one run at a time: two test files run at once."""
    with (ROOT / "Makefile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make(*targets)


def free_port() -> int:
    """Return the first of five free ports in a row, at random so that test runs do not collide."""
    while True:
        first = random.randrange(20_000, 30_000)  # noqa: S311 no secret
        if not any(why_not(port) for port in range(first, first + len(PORT_KEYS))):
            return first


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The contract in the archive."""
    return Contract.from_file(ROOT / "model" / "model-config.yaml")


@pytest.fixture(scope="session")
def checkout_in():
    """A function that copies the checkout, without ignored files, into a folder with an environment."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]

    def copy_to(target: Path) -> Path:
        known = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for file in known.splitlines():
            if os.path.lexists(ROOT / file):  # git also lists deleted files until they are committed
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, target / file, follow_symlinks=False)
        environment_in(target)
        return target

    return copy_to
