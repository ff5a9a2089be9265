"""The servers that people use instead of TorchServe: how each is installed, started and queried."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.load.wrk import Request
from bench.servers.candidates import OTHER, OTHER_OURS, Answer, Ask, Candidate, Start, put, text
from bench.servers.checkout import ROOT
from marctl.serve.torchserve.instance import WORKER_ENVIRONMENT

PROGRAMS = "bench.servers.others"
ENVIRONMENTS = ROOT / ".venv-bench"
BYTES = {"Content-Type": "application/octet-stream"}


def other_candidates(archive: Path) -> list[Candidate]:
    """Return each server with the same weights, and some again with our handler."""
    ours = {"BENCH_ARCHIVE": str(archive.resolve())}
    return [
        *(server.candidate(OTHER, {}) for server in SERVERS),
        *(server.candidate(OTHER_OURS, ours) for server in SERVERS if server.with_our_handler),
    ]


@dataclass(frozen=True)
class Server:
    """Another server: its environment, the command that starts it, and its requests."""

    name: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]  # arguments of its environment's Python, with {port}
    request: Ask
    answer: Answer = text
    environ: dict[str, str] = field(default_factory=dict)
    with_our_handler: bool = False

    def candidate(self, kind: str, environ: dict[str, str]) -> Candidate:
        """Return it as a candidate to be measured."""
        name = f"{self.name}, our handler" if kind == OTHER_OURS else self.name
        return Candidate(name, kind, self._start(environ), self.request, self.answer, self._install)

    @property
    def _environment(self) -> Path:
        return ENVIRONMENTS / self.name.lower().replace(" ", "")

    @property
    def _python(self) -> Path:
        return self._environment / "bin" / "python"

    def _install(self) -> None:
        """Create its environment, unless it exists, with what it needs besides torch, which is borrowed.

        A .pth file adds this environment's packages and this checkout. It works in every process that the
        server's Python starts, including Triton's, which ignore PYTHONPATH, and nothing has to be reinstalled
        when the checkout changes.
        """
        installed = self._environment / "installed"
        [lent] = (Path(sys.prefix) / "lib").glob("python*/site-packages")
        paths = "".join(f"{path}\n" for path in (lent, ROOT / "src", ROOT / "handler", ROOT))
        wanted = "\n".join((*self.requirements, paths))
        if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
            return
        subprocess.run([sys.executable, "-m", "venv", self._environment], check=True)
        [packages] = (self._environment / "lib").glob("python*/site-packages")
        (packages / "lent.pth").write_text(paths, encoding="utf-8")
        pip = [str(self._python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *self.requirements], check=True)
        installed.write_text(wanted, encoding="utf-8")

    def _start(self, environ: dict[str, str]) -> Start:
        def start(port: int, folder: Path) -> int:
            words = [word.format(port=port) for word in self.command]
            own = {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
            if environ:  # our handler gets the environment that it has in our workers
                own |= WORKER_ENVIRONMENT
            own |= {name: value.format(folder=folder) for name, value in self.environ.items()}
            with (folder / "console.log").open("wb") as log:
                return subprocess.Popen(
                    [self._python, *words], cwd=folder, env=os.environ | own | environ, stdout=log,
                    stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True,
                ).pid  # fmt: skip

        return start


def _program(name: str) -> tuple[str, ...]:
    return "-m", f"{PROGRAMS}.{name}", "--port", "{port}"


def _in_json(path: str, wrap: Callable[[str], object]) -> Ask:
    """Return a function that sends an image as base64 in JSON."""

    def ask(image: bytes) -> Request:
        body = json.dumps(wrap(base64.b64encode(image).decode())).encode()
        return Request(path, body, "POST", {"Content-Type": "application/json"})

    return ask


def _v2(encoded: str) -> object:
    kind = {"datatype": "BYTES", "parameters": {"content_type": "base64"}}
    return {"inputs": [{"name": "image", "shape": [1, 1], **kind, "data": [encoded]}]}


SERVERS = (
    Server(
        "gunicorn + Flask", ("flask==3.1.3", "gunicorn==27.0.1"),
        ("-m", "gunicorn", f"{PROGRAMS}.flask_server:app", "-w", "2", "-b", "127.0.0.1:{port}"),
        put("/predict", BYTES), with_our_handler=True,
    ),
    Server(
        "uvicorn + FastAPI", ("fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
        ("-m", "uvicorn", f"{PROGRAMS}.fastapi_server:app", "--workers", "2", "--port", "{port}",
         "--no-access-log"),
        put("/predict", BYTES),
    ),
    Server(
        "mosec", ("mosec==0.9.8",), (*_program("mosec_server"), "--address", "127.0.0.1"),
        put("/inference", BYTES, "POST"), with_our_handler=True,
    ),
    Server(
        "LitServe", ("litserve==0.2.19",), _program("litserve_server"),
        _in_json("/predict", lambda encoded: {"image": encoded}), json.loads,
    ),
    Server(
        "BentoML", ("bentoml==1.4.40",), _program("bentoml_service"),
        _in_json("/predict", lambda encoded: {"images": [encoded]}), lambda body: json.loads(body)[0],
        {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "{folder}"},
    ),
    Server(
        # Without the first two it is seven times slower; its guide to high throughput recommends them.
        "Ray Serve", ("ray[serve]==2.60.0",), _program("ray_app"), put("/predict"), environ={
            "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "{folder}",
        },
    ),
    Server(
        # A newer uvloop crashes its workers: "There is no current event loop".
        "MLServer", ("mlserver==1.7.1", "uvloop==0.21.0"), _program("mlserver_model"),
        _in_json("/v2/models/digits/infer", _v2), lambda body: json.loads(body)["outputs"][0]["data"][0],
    ),
    Server(
        # The wheel contains Triton; PyTriton's own dependencies are not used, and need an older numpy.
        "Triton", ("--no-deps", "nvidia-pytriton==0.7.0"), _program("triton_server"),
        put("/v2/models/digits/infer", BYTES | {"Inference-Header-Content-Length": "0"}, "POST"),
        lambda body: body[-1:].decode(), with_our_handler=True,
    ),
)  # fmt: skip
