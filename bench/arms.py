"""The servers that are measured: how each is installed, started and asked."""

from __future__ import annotations

import base64
import json
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
OTHERS = ROOT / "bench" / "others"
ENVIRONMENTS = ROOT / ".venv-bench"
PREDICTIONS = "/predictions/convnet"
BYTES = {"Content-Type": "application/octet-stream"}

Start = Callable[[int, Path], int]  # on a port, in a folder of its own: returns the process
Ask = Callable[[bytes], Request]    # what is sent for a picture file


@dataclass(frozen=True)
class Arm:
    """One server: its name in the tables, what it stands for, and how it is started and asked."""

    name: str
    kind: str
    start: Start
    request: Ask
    requirements: tuple[str, ...] = ()


FASTAPI = ("fastapi==0.165.0", "uvicorn[standard]==0.54.0")
PLAIN, OURS, NOOP, OTHER, OTHER_OURS = "plain", "ours", "no-op", "other", "other with our handler"


def own_arms(archive: Path) -> list[Arm]:
    """Return TorchServe as everybody has it, with our archive, and with handlers that compute nothing."""
    return [
        Arm("TorchServe, plain", PLAIN, _plain_torchserve, _put(PREDICTIONS)),
        Arm("TorchServe, this archive", OURS, _torchserve(lambda _: archive), _put(PREDICTIONS)),
        Arm("no-op handler", NOOP, _torchserve(noop_archive), _put(PREDICTIONS)),
        Arm("no-op handler, our reader", NOOP, _torchserve(lean_noop_archive), _put(PREDICTIONS)),
    ]


def other_arms(archive: Path) -> list[Arm]:
    """Return what people use instead of TorchServe, with the same weights; some also with our handler."""
    ours = {"BENCH_ARCHIVE": str(archive.resolve())}
    gunicorn = ("-m", "gunicorn", "flask_server:app", "-w", "2", "-b", "127.0.0.1:{port}")
    uvicorn = ("-m", "uvicorn", "fastapi_server:app", "--workers", "2", "--port", "{port}", "--no-access-log")
    mosec = (str(OTHERS / "mosec_server.py"), "--address", "127.0.0.1", "--port", "{port}")
    servers = [
        ("gunicorn + Flask", gunicorn, _put("/predict", BYTES), ("flask==3.1.3", "gunicorn==27.0.1")),
        ("uvicorn + FastAPI", uvicorn, _put("/predict", BYTES), FASTAPI),
        ("mosec", mosec, _put("/inference", BYTES, "POST"), ("mosec==0.9.8",)),
    ]
    arms = [
        Arm(name, OTHER, _python(name, command, {}), request, requirements)
        for name, command, request, requirements in servers
    ]
    litserve = _python("LitServe", (str(OTHERS / "litserve_server.py"), "--port", "{port}"), {})
    arms.append(Arm("LitServe", OTHER, litserve, _json_image, ("litserve==0.2.19",)))
    arms += [
        Arm(f"{name}, our handler", OTHER_OURS, _python(name, command, ours), request, requirements)
        for name, command, request, requirements in servers
    ]
    return arms


def environment_of(arm: Arm) -> Path:
    """Return the folder of an arm's environment: one for each framework."""
    words = arm.name.removesuffix(", our handler").lower().replace("+", " ").split()
    return ENVIRONMENTS / "-".join(words)


def install(arm: Arm) -> None:
    """Make an arm's environment, unless it is there: what it needs besides torch, which this one lends it."""
    if not arm.requirements:
        return
    folder = environment_of(arm)
    installed = folder / "installed"
    wanted = "\n".join(arm.requirements)
    if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    [packages] = (folder / "lib").glob("python*/site-packages")
    [lent] = (Path(sys.prefix) / "lib").glob("python*/site-packages")
    (packages / "lent.pth").write_text(f"{lent}\n", encoding="utf-8")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *arm.requirements], check=True)
    installed.write_text(wanted, encoding="utf-8")


def _put(path: str, headers: dict[str, str] | None = None, method: str = "PUT") -> Ask:
    return lambda picture: Request(path, picture, method, headers or {})


def _json_image(picture: bytes) -> Request:
    body = json.dumps({"image": base64.b64encode(picture).decode()}).encode()
    return Request("/predict", body, "POST", {"Content-Type": "application/json"})


def _torchserve(archive_of: Callable[[Path], Path]) -> Start:
    """Return what starts TorchServe as `make serve` does, with an archive that may have to be made."""

    def start(port: int, folder: Path) -> int:
        archive = archive_of(folder)
        model = read_manifest(archive)["model"]
        served = [Served(model["modelName"], model["modelVersion"], str(archive), "")]
        settings = Settings.from_file(ROOT / "config.properties", port)
        return Instance(folder / "run").start(settings, find_java(), archive.parent, served, None).pid

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


def _python(name: str, command: tuple[str, ...], environ: dict[str, str]) -> Start:
    """Return what starts a server by the Python of its own environment."""
    python = environment_of(Arm(name, OTHER, lambda *_: 0, _put("/"))) / "bin" / "python"
    roots = [ROOT / "model", ROOT / "handler", OTHERS, *([ROOT / "archive"] if environ else [])]
    paths = os.pathsep.join(map(str, roots))

    def start(port: int, folder: Path) -> int:
        words = [word.format(port=port) for word in command]
        quiet = {"PYTHONPATH": paths, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        with (folder / "console.log").open("wb") as log:
            return subprocess.Popen(
                [python, *words], cwd=folder, env=os.environ | quiet | environ, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            ).pid  # fmt: skip

    return start
