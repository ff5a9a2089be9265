"""What all tests share: this checkout, its commands, copies of it, and what marks a test."""

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
# The tool, as a person has it in this environment.
MARCTL = [sys.executable, "-P", "-m", "marctl"]
# The variables that the Makefile takes.
MAKE_VARIABLES = set(
    re.search(r"^override VARIABLES := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    .replace("\\", "")
    .split()
)
# A test run in the background is started without Ctrl-C, and would hand that on to all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# `make test` hands its flags and its depth on; a test runs make as a person does, at depth 0.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)
# Of the engine in this process; servers are told by their own.
os.environ["EXPLAIN"] = "1"
# Words before a command: root may read everything, unless it gives that up.
RIGHTS = "-dac_override,-dac_read_search"
WITHOUT_RIGHTS = ("setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}") if os.geteuid() == 0 else ()
DIGITS = {str(digit): (IMAGES / f"{digit}.png").read_bytes() for digit in range(10)}


@pytest.hookimpl(tryfirst=True)  # before -m chooses by them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a fixture starts."""
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            for marker in STARTED_BY.get(fixture, ()):
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that this machine has no program for, and say which; .ci/run lets none be skipped."""
    for marker in item.iter_markers():
        if (reason := missing(marker.name)) is not None:
            pytest.skip(reason)


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
        """The address that answers images."""
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
        command,
        cwd=cwd,
        env=inherited | environ,
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


def marctl(*words: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run marctl as a person would, with variables of the environment."""
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
    """Give a checkout an environment: this one's packages, and its own code before them."""
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
def contract() -> Contract:
    """The contract that the archive carries."""
    return Contract.from_file(ROOT / "model" / "model-config.yaml")


@pytest.fixture(scope="session")
def checkout_in():
    """A function that copies the files that git knows into a folder, with this environment."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]

    def copy_to(target: Path) -> Path:
        known = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for file in known.splitlines():
            if os.path.lexists(ROOT / file):  # git lists what was deleted and not yet committed, too
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, target / file, follow_symlinks=False)
        environment_in(target)
        return target

    return copy_to
