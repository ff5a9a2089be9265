"""Archives sealed in this process: a build without its three interpreters, for tests of many models.

`make archive` bundles the files with torch-model-archiver; other tests build archives that way.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tempfile
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path

from classifier.canonical import MANIFEST
from marctl import cli
from marctl.build import seal
from marctl.build.build import OPTIONS
from marctl.build.recipe import HANDLER, Recipe, recipe_of


def archive_here(**variables: str) -> subprocess.CompletedProcess[str]:
    """Build what `make archive` would with these variables; return its output and status."""
    options = {key: variables[key.upper()] for key in OPTIONS if key.upper() in variables}

    def build() -> int:
        recipe = recipe_of(variables["NAME"], options)
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / f"{recipe.name}.mar"
            bundle(recipe, raw)
            return seal.run(
                Namespace(
                    raw=raw, out=Path(variables["MAR"]), golden=recipe.golden, figures=recipe.figures,
                    runtime=recipe.runtime, locked=None, commit="unknown", created=0,
                )
            )  # fmt: skip

    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a real build does not show its warnings
        status = cli.reported(build)
    return subprocess.CompletedProcess([], status, said.getvalue(), errors.getvalue())


def bundle(recipe: Recipe, raw: Path) -> None:
    """Write the archive as torch-model-archiver does, before it is sealed."""
    own = {"modelFile": recipe.model, "serializedFile": recipe.weights, "configFile": recipe.config}
    files = {key: file for key, file in {"handler": HANDLER, **own}.items() if file}
    model = {"modelName": recipe.name, "modelVersion": recipe.version}
    manifest = {"runtime": "python", "model": model | {key: file.name for key, file in files.items()}}
    with zipfile.ZipFile(raw, "w") as mar:
        mar.writestr(MANIFEST, json.dumps(manifest))
        for file in files.values():
            mar.write(file, file.name)
        for name, file in recipe.members.items():
            mar.write(file, name)
