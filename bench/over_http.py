"""The servers as roads: start each on free ports, and have it answer all pictures."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests

from mar import read_manifest

SERVERS = Path("servers")
DOCKER_RUN = Path("deploy") / "docker-run.sh"
CLIENTS = 8
TIMEOUT = 60
PORTS = 5  # that TorchServe opens, side by side


@contextlib.contextmanager
def torchserve(archive: Path) -> Iterator[str]:
    """Serve an archive by TorchServe; yield the address of its predictions."""
    name = read_manifest(archive)["model"]["modelName"]
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, str(SERVERS / "serve.py"), "--run", run]
        port = free_port()
        start = [*command, "start", "--port", str(port), str(archive)]
        subprocess.run(start, check=True, capture_output=True)
        try:
            yield f"http://127.0.0.1:{port}/predictions/{name}"
        finally:
            subprocess.run([*command, "stop"], check=True, capture_output=True)


@contextlib.contextmanager
def flask(archive: Path) -> Iterator[str]:
    """Serve an archive by Flask; yield the server's address."""
    port = free_port()
    command = [sys.executable, str(SERVERS / "flask_app.py"), str(archive), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            if server.stdout is None or not server.stdout.readline():  # printed when it is ready
                raise RuntimeError(f"{' '.join(command)} did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@contextlib.contextmanager
def container(image: str, options: Sequence[str]) -> Iterator[str]:
    """Run an image as `make docker-run` does; yield the server's address."""
    port = free_port()
    name = f"parity-{port}"
    subprocess.run([DOCKER_RUN, image, name, str(port), *options], check=True, capture_output=True)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


def has_image(image: str) -> bool:
    """Tell whether there is a Docker engine with this image."""
    if shutil.which("docker") is None:
        return False
    inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    return inspected.returncode == 0


def free_port() -> int:
    """Return a port from which on enough are free, as far as can be seen."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + PORTS):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def put_pictures(url: str, bodies: Sequence[bytes]) -> list[str]:
    """Return the answer to each picture file, by several clients at once."""
    return _each(bodies, lambda session, body: session.put(url, body, timeout=TIMEOUT))


def post_arrays(url: str, inputs: np.ndarray) -> list[str]:
    """Return the answer to each float32 picture (C, H, W), sent as its numbers."""
    metadata = json.dumps({"dims": inputs.shape[1:]})
    return _each(
        inputs,
        lambda session, one: session.post(
            url, files={"data": one.tobytes(), "metadata": metadata}, timeout=TIMEOUT
        ),
    )


def _each(items: Sequence[Any] | np.ndarray, send: Callable[[Any, Any], requests.Response]) -> list[str]:
    local = threading.local()  # a session, and so a connection, for each client

    def ask(item: Any) -> str:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        answer = send(local.session, item)
        answer.raise_for_status()
        return answer.text

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(ask, items))
