"""Export a model folder's class anew and lock the export there, so that a build needs no torch."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from marctl.build import locked_export
from marctl.build.build import check_packages, sealed_in
from marctl.build.commit import Source
from marctl.build.model_folder import DEFAULT, HOW, LOCKED
from marctl.build.recipe import ONNX, recipe_of
from marctl.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model folder."""
    parser.add_argument("model", nargs="?", type=Path, default=DEFAULT, help="the model folder")


def run(arguments: argparse.Namespace) -> int:
    """Export, prove and lock; return the exit status. Raises UserError."""
    folder = arguments.model
    if not folder.is_dir():
        raise UserError(f"{folder} is not a model folder; {HOW}")
    recipe = recipe_of(None, {"model": str(folder)})
    if recipe.model is None:
        raise UserError(f"{folder} has no class to export; its weights are used as they are")
    recipe = replace(recipe, runtime=ONNX, locked=None)
    check_packages(recipe, None)
    made = locked_export.made_from(recipe)
    with tempfile.TemporaryDirectory(prefix="relock-") as scratch:
        # The commit is not part of what is locked.
        sealed = sealed_in(Path(scratch), recipe, Source("unknown", 0), None, subprocess.DEVNULL)
        if sealed is None:
            return 1
        locked_export.write(folder / LOCKED, made, sealed)
    print(f"locked in {folder / LOCKED}")
    return 0
