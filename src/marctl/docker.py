"""Build, run and stop the Docker images of both servers."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
from pathlib import Path

from marctl.archive.mar import read_manifest, reading
from marctl.archive.runtime import needs_torch
from marctl.errors import UserError

# The archive is copied to this path, so that the Dockerfile need not know its name. The folder holds nothing
# else.
STAGED = Path("model_store") / ".image" / "model.mar"
# The Dockerfile's targets. Those of the first line have no torch.
LEAN = ("flask", "torchserve")
TARGETS = (*LEAN, "torch")
USUAL = "torchserve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action, and the image or container it applies to."""
    parser.add_argument("action", choices=sorted(ACTIONS), help="what to do")
    parser.add_argument("archive", type=Path, nargs="?", help="the .mar file to build into the images")
    parser.add_argument("--name", default="convnet", help="the image's name (default: %(default)s)")
    parser.add_argument("--options", default="", help="more options for docker build or docker run")
    parser.add_argument(
        "--target",
        choices=TARGETS,
        help=f"which image (default: to build {' and '.join(LEAN)}, to run {USUAL})",
    )
    parser.add_argument("--container", default="", help="the container's name")
    parser.add_argument("--port", default="", help="the first port to publish on this machine")


def run(arguments: argparse.Namespace) -> int:
    """Run the action; return docker's exit status."""
    _check_engine()
    return ACTIONS[arguments.action](arguments)


def build(arguments: argparse.Namespace) -> int:
    """Build the images around one archive. Raises UserError if the archive needs torch and they have none."""
    if arguments.archive is None:
        raise UserError("name the archive: marctl docker build model_store/convnet.mar")
    if not arguments.archive.is_file():
        raise UserError(f"there is no archive {arguments.archive}; build it with: make archive")
    targets = [arguments.target] if arguments.target else LEAN
    with reading(arguments.archive) as mar:
        names = mar.namelist()
    if set(targets) <= set(LEAN) and needs_torch(names, read_manifest(arguments.archive)["model"]):
        raise UserError(f"{arguments.archive} runs on torch, and the images {' and '.join(targets)} have "
                        "none; build the one with torch: make docker TARGET=torch")  # fmt: skip
    STAGED.parent.mkdir(exist_ok=True)
    try:
        shutil.copyfile(arguments.archive, STAGED)
        for target in targets:
            command = ["docker", "build", *_words(arguments.options), "--build-arg", f"MAR={STAGED}",
                       "--target", target, "--tag", f"{arguments.name}:{target}", "."]  # fmt: skip
            print(shlex.join(command), flush=True)
            if status := subprocess.run(command, check=False).returncode:
                return status
    finally:
        shutil.rmtree(STAGED.parent)
    return 0


def start(arguments: argparse.Namespace) -> int:
    """Run an image, locked down."""
    command = ["deploy/docker-run.sh", f"{arguments.name}:{arguments.target or USUAL}", _container(arguments),
               arguments.port, *_words(arguments.options)]  # fmt: skip
    return subprocess.run(command, check=False).returncode


def stop(arguments: argparse.Namespace) -> int:
    """Stop and remove a container."""
    container = _container(arguments)
    if status := subprocess.run(["docker", "stop", "--", container], check=False).returncode:
        return status
    remove = ["docker", "rm", "--", container]
    return subprocess.run(remove, check=False, stdout=subprocess.DEVNULL).returncode


ACTIONS = {"build": build, "run": start, "stop": stop}


def _container(arguments: argparse.Namespace) -> str:
    return arguments.container or f"{arguments.name}-{arguments.target or USUAL}"


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"cannot parse the options {text!r} ({error}); quote them as in a shell") from error


def _check_engine() -> None:
    if shutil.which("docker") is None or subprocess.run(
        ["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode:  # fmt: skip
        raise UserError(
            "no Docker engine answers to 'docker info'; install or start Docker, or set DOCKER_HOST to its "
            "address"
        )
