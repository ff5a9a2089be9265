"""What is measured: TorchServe as it comes, with our archive, and with handlers that compute nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arm_archives import lean_noop_archive, noop_archive, plain_archive
from instance import Instance, Served
from java import find_java
from load import Request
from mar import read_manifest
from settings import Settings

ROOT = Path(__file__).parents[1]
PREDICTIONS = "/predictions/convnet"
PLAIN, OURS, NOOP, OTHER, OTHER_OURS = "plain", "ours", "no-op", "other", "other with our handler"

Start = Callable[[int, Path], int]  # on a port, in a folder of its own: returns the process
Ask = Callable[[bytes], Request]    # what is sent for a picture file
Answer = Callable[[bytes], str]     # the label in an answer's body


def put(path: str, headers: dict[str, str] | None = None, method: str = "PUT") -> Ask:
    """Return what sends a picture file as it is."""
    return lambda picture: Request(path, picture, method, headers or {})


def text(body: bytes) -> str:
    """Return the label of a body that is nothing else."""
    return body.decode()


def nothing() -> None:
    """Install nothing."""


@dataclass(frozen=True)
class Arm:
    """One server: its name in the tables, what it stands for, how it is started and asked."""

    name: str
    kind: str
    start: Start
    request: Ask
    answer: Answer = text
    install: Callable[[], None] = nothing


def own_arms(archive: Path) -> list[Arm]:
    """Return TorchServe as everybody has it, with our archive, and with handlers that compute nothing."""
    return [
        Arm("TorchServe, plain", PLAIN, _plain_torchserve, put(PREDICTIONS)),
        Arm("TorchServe, this archive", OURS, _torchserve(lambda _: archive), put(PREDICTIONS)),
        Arm("no-op handler", NOOP, _torchserve(noop_archive), put(PREDICTIONS)),
        Arm("no-op handler, our reader", NOOP, _torchserve(lean_noop_archive), put(PREDICTIONS)),
    ]


def _torchserve(archive_of: Callable[[Path], Path]) -> Start:
    """Return what starts TorchServe as `make serve` does, with an archive that may have to be made."""

    def start(port: int, folder: Path) -> int:
        archive = archive_of(folder)
        model = read_manifest(archive)["model"]
        served = [Served(model["modelName"], model["modelVersion"], str(archive), "")]
        settings = Settings.from_file(ROOT / "config.properties", port)
        return Instance(folder / "run").start(settings, find_java(), served).pid

    return start


def _plain_torchserve(port: int, folder: Path) -> int:
    """Start TorchServe with all its defaults, but for its ports and the tokens."""
    archive = plain_archive(folder)
    config = folder / "config.properties"
    ports = zip(("inference", "management", "metrics"), range(port, port + 3), strict=True)
    lines = [f"{name}_address=http://127.0.0.1:{number}" for name, number in ports]
    lines += [f"grpc_inference_port={port + 3}", f"grpc_management_port={port + 4}"]
    config.write_text("\n".join([*lines, "disable_token_authorization=true"]) + "\n", encoding="utf-8")
    environ = os.environ | {
        "JAVA_HOME": str(find_java().home), "TMPDIR": str(folder), "TEMP": str(folder),
        "LOG_LOCATION": str(folder), "METRICS_LOCATION": str(folder),
    }  # fmt: skip
    environ.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "ts.model_server", "--start", "--ncs", "--ts-config", str(config)]
    command += ["--model-store", str(archive.parent), "--models", f"convnet={archive.name}"]
    with (folder / "console.log").open("wb") as log:
        subprocess.run(
            command, cwd=folder, env=environ, check=True, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return int((folder / ".model_server.pid").read_text(encoding="ascii"))
