"""Write an archive's model in another format, in a separate process; `marctl export` starts it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from marctl.export.batches import Model
from marctl.export.command import AOTI, ONNX, SCRIPTED, TRACED
from marctl.export.export import Exporter, export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the format, the archive and the file to write."""
    parser.add_argument("kind", choices=(SCRIPTED, TRACED, AOTI, ONNX))
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path)


def run(arguments: argparse.Namespace) -> int:
    """Write the file. Raises UserError."""
    logging.disable(logging.WARNING)  # TorchServe warns about every accelerator that is not installed
    export(arguments.archive, arguments.out, *_exporter_of(arguments.kind))
    return 0


def _exporter_of(kind: str) -> tuple[Exporter, Callable[[Path], Model]]:
    """Return the function that writes a format, and the one that loads it."""
    # Imported only when used: the ONNX exporter is not part of the serving environment.
    if kind == ONNX:
        from classifier.runtime.onnx import load_onnx
        from marctl.export.to_onnx import to_onnx

        return to_onnx, load_onnx
    if kind == AOTI:
        from classifier.runtime.exported import load_compiled
        from marctl.export.to_aoti import to_aoti

        return to_aoti, load_compiled
    from classifier.runtime.exported import load_torchscript
    from marctl.export.to_torchscript import scripted, traced

    return (scripted if kind == SCRIPTED else traced), load_torchscript
