"""What some tests need and no Python package provides, by marker."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from marctl.serve.front.nginx import PLACES, PROGRAM

ROOT = Path(__file__).parents[2]
CPP_HEADERS = (Path("/usr/include/stb/stb_image.h"), Path("/usr/include/nlohmann/json.hpp"))
# Fixtures that start one of these: a test that uses them needs no marker of its own.
STARTED_BY = {
    "server": ("torchserve",),
    "flask_server": ("flask",),
    "door": ("torchserve",),  # without nginx there is no proxy, and the test runs without it
    "everywhere": ("torchserve", "flask"),
    "program": ("cpp",),
}


@cache
def missing(marker: str) -> str | None:
    """Return what this marker's tests lack on this machine and how to get it, or None."""
    look = LOOKS.get(marker)
    return None if look is None else look()


def _program(name: str, package: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(name) else f"this needs {name}: apt-get install {package}"


def _nginx() -> str | None:
    return None if shutil.which(PROGRAM, path=PLACES) else "this needs nginx: apt-get install nginx-light"


def _cpp() -> str | None:
    if shutil.which("g++") and all(header.exists() for header in CPP_HEADERS):
        return None
    return "the C++ program needs: apt-get install g++ libstb-dev nlohmann-json3-dev"


def _docker() -> str | None:
    if shutil.which("docker") is None:
        return "this needs a Docker engine, and there is no docker command"
    done = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return None if done.returncode == 0 else "no Docker engine answers to `docker info`"


def _environment(name: str, target: str) -> Callable[[], str | None]:
    python = ROOT / name / "bin" / "python"
    return lambda: None if python.exists() else f"this needs the environment {name}: make {target}"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "only root may do this"


def _namespaces() -> str | None:
    words = ["unshare", "--mount", "true"]
    if shutil.which("unshare") and subprocess.run(words, capture_output=True, check=False).returncode == 0:
        return None
    return "this needs a mount namespace: run it as root"


LOOKS: dict[str, Callable[[], str | None]] = {
    "nginx": _nginx,
    "chromium": _program("chromium", "chromium"),
    "docker": _docker,
    "prometheus": _program("prometheus", "prometheus"),
    "compiler": _program("g++", "g++"),
    "cpp": _cpp,
    "tensorflow": _environment(".venv-tensorflow", "tensorflow"),
    "audit": _environment(".venv-audit", "audit"),
    "root": _root,
    "namespaces": _namespaces,
}
