"""Archives to measure ours against: the usual one, and two whose handlers compute nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
HANDLERS = Path(__file__).parent / "torchserve"
MODEL = ROOT / "model"
CONFIG = MODEL / "model-config.yaml"


def plain_archive(folder: Path) -> Path:
    """Build the archive of TorchServe's documentation: no contract, so TorchServe's defaults hold."""
    spec = folder / "plain.yaml"
    spec.write_text(yaml.safe_dump({"input": yaml.safe_load(CONFIG.read_text())["input"]}), encoding="utf-8")
    options = ["--model-file", MODEL / "convnet.py", "--serialized-file", MODEL / "convnet.pth"]
    return _built(folder, "plain_handler.py", [*options, "--extra-files", spec])


def noop_archive(folder: Path) -> Path:
    """Build an archive that answers a constant, with our contract's workers and batches."""
    return _built(folder, "noop_handler.py", ["--config-file", CONFIG])


def lean_noop_archive(folder: Path) -> Path:
    """Build an archive that answers a constant, and reads from the front end as ours does."""
    reader = ROOT / "handler" / "front_end.py"
    return _built(folder, "lean_noop_handler.py", ["--config-file", CONFIG, "--extra-files", reader])


def _built(folder: Path, handler: str, options: Sequence[object]) -> Path:
    store = folder / "store"
    store.mkdir(exist_ok=True)
    archiver = str(Path(sys.executable).with_name("torch-model-archiver"))
    command = [archiver, "--model-name", "convnet", "--version", "1.0", "--force"]
    command += ["--handler", str(HANDLERS / handler), "--export-path", str(store), *map(str, options)]
    subprocess.run(command, env=os.environ | {"TMPDIR": str(folder)}, check=True, capture_output=True)
    return store / "convnet.mar"
