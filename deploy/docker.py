"""Build and run the images, with options as people write them in a shell: deploy/docker.py --help."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The archive under a name that every Dockerfile can copy, whatever its own is. No other file lies here.
STAGED = Path("model_store") / ".image" / "model.mar"
TARGETS = ("flask", "torchserve")


class NotRun(RuntimeError):
    """Docker cannot do it; the text says what is missing."""


def main() -> int:
    """Do what the first argument says; return docker's exit status."""
    arguments = _arguments()
    try:
        _check_engine()
        return int(arguments.do(arguments))
    except NotRun as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def build(arguments: argparse.Namespace) -> int:
    """Build the image of each server around one archive."""
    if not arguments.archive.is_file():
        raise NotRun(f"there is no archive {arguments.archive}; build it with: make archive")
    STAGED.parent.mkdir(exist_ok=True)
    try:
        shutil.copyfile(arguments.archive, STAGED)
        for target in TARGETS:
            command = ["docker", "build", *_words(arguments.options), "--build-arg", f"MAR={STAGED}",
                       "--target", target, "--tag", f"{arguments.name}:{target}", "."]  # fmt: skip
            print(shlex.join(command), flush=True)
            if status := subprocess.run(command, check=False).returncode:
                return status
    finally:
        shutil.rmtree(STAGED.parent)
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run an image, locked down."""
    command = [str(HERE / "docker-run.sh"), f"{arguments.name}:{arguments.target}", _container(arguments),
               arguments.port, *_words(arguments.options)]  # fmt: skip
    return subprocess.run(command, check=False).returncode


def stop(arguments: argparse.Namespace) -> int:
    """Stop and remove a container."""
    container = _container(arguments)
    if status := subprocess.run(["docker", "stop", "--", container], check=False).returncode:
        return status
    remove = ["docker", "rm", "--", container]
    return subprocess.run(remove, check=False, stdout=subprocess.DEVNULL).returncode


def _container(arguments: argparse.Namespace) -> str:
    return arguments.container or f"{arguments.name}-{arguments.target}"


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise NotRun(f"the options {text!r} cannot be read ({error}); write them as in a shell") from error


def _check_engine() -> None:
    if shutil.which("docker") is None or subprocess.run(
        ["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode:  # fmt: skip
        raise NotRun(
            "no Docker engine answers to 'docker info'; install Docker, or start it, or say where it is by "
            "DOCKER_HOST"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="convnet", help="the image's name")
    parser.add_argument("--options", default="", help="of docker build or docker run, as in a shell")
    commands = parser.add_subparsers(required=True)
    building = commands.add_parser("build", help=build.__doc__)
    building.set_defaults(do=build)
    building.add_argument("archive", type=Path, help="a .mar file")
    for do in (run, stop):
        command = commands.add_parser(do.__name__, help=do.__doc__)
        command.set_defaults(do=do)
        command.add_argument("--target", default="torchserve", choices=TARGETS)
        command.add_argument("--container", default="", help="its name")
        command.add_argument("--port", default="", help="the first of its ports on this machine")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
