"""A checkout's own servers, started and stopped with its make, as a person does, whatever is behind it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.servers.processes import Family, answers, free_port, until

ROOT = Path(__file__).parents[2]
DOCKER_RUN = ROOT / "deploy" / "docker-run.sh"
# A make that runs this program passes on its flags, variables and depth; these calls must not inherit them.
INHERITED = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}


def make(
    *targets: str, checkout: Path = ROOT, within: Iterable[str] = (), **variables: Path | str | int
) -> None:
    """Run make in a checkout; only its errors are printed. Raises CalledProcessError.

    `within` is a command prefix, such as that of a memory limit.
    """
    command = [*within, *_command(targets, variables)]
    subprocess.run(command, cwd=checkout, env=_environ(), check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip


@contextlib.contextmanager
def torchserve(archive: Path) -> Iterator[int]:
    """Serve an archive as `make serve` does; yield the first of TorchServe's ports."""
    port = free_port()
    with tempfile.TemporaryDirectory() as run:
        try:
            make("serve", RUN=run, PORT=port, MAR=archive.resolve())
            yield port
        finally:
            make("stop", RUN=run)


@contextlib.contextmanager
def flask(archive: Path, **variables: str) -> Iterator[int]:
    """Serve an archive as `make flask` does; yield its port."""
    port = free_port(1)
    command = _command(["flask"], {"PORT": port, "MAR": archive.resolve(), **variables})
    with subprocess.Popen(command, cwd=ROOT, env=_environ(), stdout=subprocess.DEVNULL) as server:
        try:
            until(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/"))
            if server.poll() is not None:
                raise RuntimeError(f"make flask ended with {server.returncode}")
            yield port
        finally:
            if server.poll() is None:
                Family(server.pid).end()


@contextlib.contextmanager
def container(image: str, options: Sequence[str]) -> Iterator[int]:
    """Run an image as `make docker-run` does; yield its port."""
    port = free_port(2)
    name = f"bench-{port}"
    subprocess.run([DOCKER_RUN, image, name, str(port), *options], check=True, capture_output=True)
    try:
        yield port
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


def _command(targets: Iterable[str], variables: dict[str, Path | str | int]) -> list[str]:
    return ["make", "--silent", *targets, *(f"{name}={value}" for name, value in variables.items())]


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in INHERITED}
