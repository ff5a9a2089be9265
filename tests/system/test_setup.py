"""An environment is created only with a Python that fits."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.waiting import COMMAND

# Runs code as if another Python did.
OTHER = """#!/bin/sh
case $1 in
-c) exec {real} -c 'import sys; sys.version_info = {version}; exec(sys.argv[1])' "$2" ;;
--version) echo Python {shown} ;;
esac
"""


# A Python that records what it is asked to do.
RECORDING = """#!/bin/sh
[ "$1" = -c ] || echo "$@" >>{log}
"""


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        ("cpu", " --extra-index-url https://download.pytorch.org/whl/cpu"),
        ("cuda", ""),
    ],
)
def test_own_packages_are_of_torchs_build(tmp_path, build, expected):
    """What a user's class needs may need torch, which must not be replaced by a build of several GB."""
    venv, log = tmp_path / "venv", tmp_path / "log"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(RECORDING.format(log=log))
    (venv / "bin" / "python").chmod(0o755)
    (venv / "torch-build").write_text(f"{build}\n")
    command = ["setup/venv.sh", venv, "requirements/own.txt"]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=COMMAND, check=True)
    said = log.read_text().splitlines()
    assert f"-m pip install --quiet --disable-pip-version-check{expected} -r requirements/own.txt" in said


def refused(tmp_path, version, lock):
    """Return the error of the setup with such a Python."""
    shown = ".".join(map(str, version))
    other = tmp_path / "an other python"
    other.write_text(OTHER.format(real=sys.executable, version=version, shown=shown))
    other.chmod(0o755)
    done = subprocess.run(
        ["setup/venv.sh", tmp_path / "venv", f"requirements/{lock}.txt"], cwd=ROOT,
        env=os.environ | {"PYTHON": str(other)}, capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert not (tmp_path / "venv").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("version", "lock", "wanted"),
    [
        ((3, 10, 12), "serve", "Python 3.11, 3.12 or 3.13"),
        ((3, 14, 0), "serve", "Python 3.11, 3.12 or 3.13"),
        ((3, 13, 5), "dev", "Python 3.11"),
        ((3, 12, 3), "tensorflow", "Python 3.11"),
    ],
    ids=["too-old", "too-new", "tests", "tensorflow"],
)
def test_python_that_does_not_fit_is_named(tmp_path, version, lock, wanted):
    """The error says what came and what to give; nothing is created."""
    shown = ".".join(map(str, version))
    assert refused(tmp_path, version, lock) == (
        f"error: {wanted} is needed, found: Python {shown}. Install it, or give its path: "
        "make PYTHON=/path/to/python3.11\n"
    )
