"""Export an archive's model to TorchScript, AOTInductor, ONNX or TensorFlow.

A file is written again only if the archive or the exporting code has changed. TensorFlow gets two files, a
SavedModel and a frozen graph: the ONNX file is exported first, and converted in an environment with
TensorFlow.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from marctl.errors import UserError
from marctl.once import make

SCRIPTED, TRACED, AOTI, ONNX, TENSORFLOW = "scripted", "traced", "aoti", "onnx", "tensorflow"
ENDINGS = {
    SCRIPTED: [".scripted.pt"], TRACED: [".traced.pt"], AOTI: [".pt2"], ONNX: [".onnx"],
    TENSORFLOW: [".savedmodel", ".pb"],
}  # fmt: skip
FOLDER = Path("exported")
CODE = Path(__file__).parent
GOLDEN = Path("tests/images")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the format, the archive and the files to write."""
    parser.add_argument("kind", choices=list(ENDINGS), help="the format")
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument(
        "out", type=Path, nargs="*",
        help=f"the file to write, for {TENSORFLOW} two (default: {FOLDER}/NAME, for an archive NAME.mar)",
    )  # fmt: skip
    parser.add_argument(
        "--golden", type=Path, default=GOLDEN, help=f"images to check {TENSORFLOW}'s files with"
    )
    parser.add_argument(
        "--tensorflow", type=Path, default=Path(".venv-tensorflow"), help="the environment with TensorFlow"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export; return the exit status. Raises UserError."""
    archive, kind = arguments.archive, arguments.kind
    out = arguments.out or _default_paths(archive, kind)
    if len(out) != len(ENDINGS[kind]):
        raise UserError(f"{len(out)} outputs were named for {kind}; name {len(ENDINGS[kind])}: "
                        f"{', '.join(f'NAME{ending}' for ending in ENDINGS[kind])}")  # fmt: skip
    if kind != TENSORFLOW:
        return _convert(archive, kind, out)
    onnx = _default_paths(archive, ONNX)
    python = arguments.tensorflow / "bin" / "python"
    if not python.exists():
        raise UserError(f"there is no environment {arguments.tensorflow}; create it with: make tensorflow")
    if status := _convert(archive, ONNX, onnx):
        return status
    command = [
        python,
        "-P",
        "-m",
        "marctl",
        "to-tensorflow",
        f"--golden={arguments.golden}",
        "--",
        *onnx,
        *out,
    ]
    return make(out, [*onnx, CODE], list(map(str, command)))


def _default_paths(archive: Path, kind: str) -> list[Path]:
    return [FOLDER / f"{archive.stem}{ending}" for ending in ENDINGS[kind]]


def _convert(archive: Path, kind: str, out: list[Path]) -> int:
    command = [sys.executable, "-P", "-m", "marctl", "convert", kind, "--", archive, *out]
    # TorchScript's compiler writes sets in their order, so the file would differ between builds.
    os.environ["PYTHONHASHSEED"] = "0"
    return make(out, [archive, CODE], list(map(str, command)))
