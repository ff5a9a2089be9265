"""Start this checkout's TorchServe with archives, and return when it is ready."""

from __future__ import annotations

import argparse
import hashlib
import shlex
import time
from pathlib import Path

from instance import Instance, Running, Served
from java import find_java
from mar import BadArchive, known_answer, read_manifest
from members import check_members
from ports import check_free
from readiness import wait_until_ready
from say import say
from settings import Settings
from signature import check_signature

# Seconds for all workers to load; model-config.yaml's startupTimeout is TorchServe's own limit.
READY_TIMEOUT = 120.0


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the arguments name, on their port and host, with or without tokens.

    Raises BadSettings.
    """
    settings = Settings.from_file(arguments.config, arguments.port)
    if arguments.tokens:
        settings = settings.with_tokens(arguments.tokens)
    return settings.on_host(arguments.host) if arguments.host else settings


def start_and_wait(
    instance: Instance, settings: Settings, archives: list[Path], arguments: argparse.Namespace
) -> Running:
    """Start TorchServe with these archives, return when it is ready, and say so."""
    if arguments.public_key is not None:
        for archive in archives:
            check_signature(archive, arguments.public_key)
    served = [describe(archive) for archive in archives]
    java = find_java()
    check_free(settings.ports)
    began = time.monotonic()
    state = instance.start(settings, java, _store(archives), served, arguments.log_config)
    wait_until_ready(state, instance.logs, READY_TIMEOUT)
    took = time.monotonic() - began
    say(f"serving {names_of(served)} on {state.inference}")
    say(f"  ready after {took:.1f} s, on Java {java.version} of {java.found}")
    return state


def describe(archive: Path) -> Served:
    """Say what an archive serves.

    Raises BadArchive where it is no archive that can be held to answers, or not safe to unpack.
    """
    model = read_manifest(archive)["model"]
    check_members(archive)
    known_answer(archive)
    return Served(model["modelName"], model["modelVersion"], str(archive), sha256(archive))


def names_of(served: list[Served]) -> str:
    """Return the archives' files, for people."""
    return ", ".join(one.archive for one in served)


def picture_of(path: str) -> str:
    """Return a picture to be tried, as a word of a shell: the file, or one of a folder."""
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).glob("[!.]*") if file.is_file())
        # The digit of the documentation, where it is there.
        path = str(next((file for file in files if file.name == "2.png"), files[0] if files else "image.jpg"))
    # curl takes brackets and braces for patterns, unless it is told not to.
    return shlex.quote(path) + (" -g" if set(path) & set("[]{}") else "")


def _store(archives: list[Path]) -> Path:
    """Return the one folder of the archives: TorchServe serves from no more."""
    folders = {archive.resolve().parent for archive in archives}
    if len(folders) > 1:
        raise BadArchive(f"the archives lie in {len(folders)} folders; put them into one, e.g. model_store")
    return folders.pop()


def sha256(archive: Path) -> str:
    """Return a file's SHA-256, in hexadecimal digits."""
    return hashlib.sha256(archive.read_bytes()).hexdigest()
