"""What is compared: TorchServe with its defaults, with this archive, and with no-op handlers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.load.wrk import Request
from bench.servers.checkout import ROOT
from marctl.archive.mar import read_manifest
from marctl.serve.torchserve.instance import Instance, Served
from marctl.serve.torchserve.java import find_java
from marctl.serve.torchserve.settings import Settings

HANDLERS = Path(__file__).parent / "torchserve"
MODEL = ROOT / "model"
CONFIG = MODEL / "model-config.yaml"
PREDICTIONS = "/predictions/convnet"
PLAIN, OURS, NOOP, OTHER, OTHER_OURS = "plain", "ours", "no-op", "other", "other with our handler"

Start = Callable[[int, Path], int]  # on a port, in a folder of its own: returns the process
Ask = Callable[[bytes], Request]  # what is sent for an image file
Answer = Callable[[bytes], str]  # the label in an answer's body


def put(path: str, headers: dict[str, str] | None = None, method: str = "PUT") -> Ask:
    """Return a function that sends an image file as it is."""
    return lambda image: Request(path, image, method, headers or {})


def text(body: bytes) -> str:
    """Return the label in a body that has nothing else."""
    return body.decode()


def nothing() -> None:
    """Install nothing."""


@dataclass(frozen=True)
class Candidate:
    """One server: its name in the tables, its kind, and how it is started and queried."""

    name: str
    kind: str
    start: Start
    request: Ask
    answer: Answer = text
    install: Callable[[], None] = nothing


def own_candidates(archive: Path) -> list[Candidate]:
    """Return TorchServe with its defaults, with our archive, and with handlers that compute nothing."""
    return [
        Candidate("TorchServe, plain", PLAIN, _plain_torchserve, put(PREDICTIONS)),
        Candidate("TorchServe, this archive", OURS, _torchserve(lambda _: archive), put(PREDICTIONS)),
        Candidate("no-op handler", NOOP, _torchserve(_noop_archive), put(PREDICTIONS)),
        Candidate("no-op handler, our reader", NOOP, _torchserve(_lean_noop_archive), put(PREDICTIONS)),
    ]


def _torchserve(archive_of: Callable[[Path], Path]) -> Start:
    """Return a function that starts TorchServe like `make serve`, with an archive that may be built first."""

    def start(port: int, folder: Path) -> int:
        archive = archive_of(folder)
        model = read_manifest(archive)["model"]
        served = [Served(model["modelName"], model["modelVersion"], str(archive), "")]
        settings = Settings.from_file(ROOT / "config.properties", port)
        return Instance(folder / "run").start(settings, find_java(), served).pid

    return start


def _plain_torchserve(port: int, folder: Path) -> int:
    """Start TorchServe with all its defaults, except for its ports and tokens."""
    archive = _plain_archive(folder)
    config = folder / "config.properties"
    ports = zip(("inference", "management", "metrics"), range(port, port + 3), strict=True)
    lines = [f"{name}_address=http://127.0.0.1:{number}" for name, number in ports]
    lines += [f"grpc_inference_port={port + 3}", f"grpc_management_port={port + 4}"]
    config.write_text("\n".join([*lines, "disable_token_authorization=true"]) + "\n", encoding="utf-8")
    environ = os.environ | {
        "JAVA_HOME": str(find_java().home), "TMPDIR": str(folder), "TEMP": str(folder),
        "LOG_LOCATION": str(folder), "METRICS_LOCATION": str(folder),
    }  # fmt: skip
    command = [sys.executable, "-m", "ts.model_server", "--start", "--ncs", "--ts-config", str(config)]
    command += ["--model-store", str(archive.parent), "--models", f"convnet={archive.name}"]
    with (folder / "console.log").open("wb") as log:
        subprocess.run(
            command, cwd=folder, env=environ, check=True, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return int((folder / ".model_server.pid").read_text(encoding="ascii"))


def _plain_archive(folder: Path) -> Path:
    """Build the archive of TorchServe's documentation: no contract, so TorchServe's defaults apply."""
    spec = folder / "plain.yaml"
    spec.write_text(yaml.safe_dump({"input": yaml.safe_load(CONFIG.read_text())["input"]}), encoding="utf-8")
    options = ["--model-file", MODEL / "convnet.py", "--serialized-file", MODEL / "convnet.pth"]
    return _built(folder, "plain_handler.py", [*options, "--extra-files", spec])


def _noop_archive(folder: Path) -> Path:
    """Build an archive that answers a constant, with our contract's workers and batches."""
    return _built(folder, "noop_handler.py", ["--config-file", CONFIG])


def _lean_noop_archive(folder: Path) -> Path:
    """Build an archive that answers a constant, and reads from the front end as ours does."""
    options = ["--config-file", CONFIG, "--extra-files", ROOT / "handler"]
    return _built(folder, "lean_noop_handler.py", options)


def _built(folder: Path, handler: str, options: Sequence[object]) -> Path:
    store = folder / "store"
    store.mkdir(exist_ok=True)
    archiver = str(Path(sys.executable).with_name("torch-model-archiver"))
    command = [archiver, "--model-name", "convnet", "--version", "1.0", "--force"]
    command += ["--handler", str(HANDLERS / handler), "--export-path", str(store), *map(str, options)]
    subprocess.run(command, env=os.environ | {"TMPDIR": str(folder)}, check=True, capture_output=True)
    return store / "convnet.mar"
