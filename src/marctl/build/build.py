"""Build an archive: torch-model-archiver bundles class, weights, contract and handler, then it is sealed.

It is rebuilt only if one of its inputs has changed, and never overwrites a file that was not built here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from classifier.runtime import ONNX_SUFFIX
from marctl import __version__
from marctl.archive.mar import SUFFIX as SIGNATURE
from marctl.archive.mar import is_signature
from marctl.build import locked_export
from marctl.build.commit import Source, source_of
from marctl.build.exporters import EXPORTERS, version
from marctl.build.model_folder import archive_of
from marctl.build.recipe import HANDLER, ONNX, Recipe, recipe_of
from marctl.errors import UserError
from marctl.export.runtime_member import EAGER
from marctl.extras import need, need_torch
from marctl.records import Records, digest, digest_of

TOOL = Path(__file__).resolve().parents[1]
# The code of the build: a change in it may change the archive.
BUILDERS = [file for part in ("archive", "build", "export") for file in sorted((TOOL / part).glob("*.py"))]
PACKAGES = ("torch-model-archiver", *EXPORTERS)
# What the archiver's command runs; running its package with -m gives a warning.
ARCHIVER = "from model_archiver.model_packaging import generate_model_archive as run; run()"
OPTIONS = ("version", "model", "weights", "config", "labels", "golden", "figures", "runtime")
# Options that belong to a model folder: with another folder, the earlier ones no longer apply.
OF_A_FOLDER = ("weights", "config", "labels", "golden", "figures")
REMEDY = "move it away, or build elsewhere: make archive MAR=model_store/other.mar"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model folder, and options that replace parts of it."""
    parser.add_argument(
        "model",
        nargs="?",
        help="the model folder (default: model) or a class file; empty: no class",
    )
    parser.add_argument("--mar", type=Path, help="the .mar file to build (default: model_store/NAME.mar)")
    parser.add_argument("--name", help="the model's name, part of its URL")
    parser.add_argument("--version", help="the model's version")
    parser.add_argument("--weights", help="the weights: .pth, .safetensors, .pt or .onnx")
    parser.add_argument("--config", help="the contract, model-config.yaml")
    parser.add_argument("--labels", help="JSON that maps indices to labels")
    parser.add_argument("--golden", help="a folder of images that the model has to recognise")
    parser.add_argument("--figures", help="JSON with the figures of training and evaluation")
    parser.add_argument("--runtime", help="the runtime: eager, torchscript, onnx or aoti")
    parser.add_argument("--if-needed", action="store_true", help="keep an archive that was not built here")


def run(arguments: argparse.Namespace) -> int:
    """Build one archive, or report that it is up to date; return the exit status."""
    named = {"NAME": arguments.name, "MODEL": arguments.model, "MAR": arguments.mar and str(arguments.mar)}
    mar = Path(archive_of({key: value for key, value in named.items() if value is not None}))
    records = Records()
    try:
        with records.making(mar):
            return _build(mar, arguments, records)
    except OSError as error:
        where = error.filename or mar
        why = f"{where}: {error.strerror or error}"
        if arguments.if_needed and mar.is_file():
            note = f"{mar} is out of date but is used as it is: it cannot be built here ({why})"
            print(f"note: {note}", file=sys.stderr)
            return 0
        raise UserError(f"{why}; nothing was built") from error


def _build(mar: Path, arguments: argparse.Namespace, records: Records) -> int:
    if arguments.if_needed and os.path.lexists(mar) and not records.is_ours(mar):
        print(f"note: {mar} was not built by this checkout; it is used as it is", file=sys.stderr)
        return 0
    records.check_may_write(mar, REMEDY)
    before = records.of(mar)
    given = _given(arguments, before.options if before else {})
    recipe = recipe_of(arguments.name, given)
    inputs, source = inputs_of(recipe), source_of(recipe.own)
    made_of = f"{source.commit} {source.created}"
    # If git fails, the same files are still from the commit recorded earlier.
    if records.is_fresh(mar, inputs) and before and (source.doubt or before.source == made_of):
        if not arguments.if_needed:
            print(f"{mar} is up to date")
        return 0
    if not mar.parent.is_dir():
        raise UserError(f"there is no folder {mar.parent} for {mar.name}; create it with mkdir -p")
    if source.doubt:
        print(
            "note: the archive will not name its commit, so its digest differs from a build that does: "
            f"{source.doubt}",
            file=sys.stderr,
        )
    locked = _usable(recipe)
    check_packages(recipe, locked)
    with scratch_beside(mar) as scratch:
        sealed = sealed_in(Path(scratch), recipe, source, locked)
        if sealed is None:
            return 1
        sha256 = digest(sealed)
        # Checked again: somebody may have put another file there during the build.
        records.check_may_write(mar, REMEDY)
        signature = mar.with_name(mar.name + SIGNATURE)
        if mar.exists() and digest(mar) != sha256 and is_signature(signature):
            signature.unlink()  # it belongs to the archive that is being replaced
        records.write(mar, sha256, inputs, given, made_of)
        sealed.replace(mar)
    return 0


def inputs_of(recipe: Recipe) -> str:
    """Return the SHA-256 of everything that the archive's bytes depend on, except the commit and its time."""
    files = [*recipe.sources, *([recipe.locked] if recipe.locked else [])]
    content = [word for file in files for word in (str(file), digest(file))]
    builders = [digest(file) for file in BUILDERS]
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    words = (recipe.name, recipe.version, recipe.runtime, __version__)
    return digest_of([*words, *content, *builders, *versions])


def _usable(recipe: Recipe) -> Path | None:
    """Return the folder of the recipe's locked export if it fits. Raises UserError."""
    if recipe.runtime != ONNX or recipe.locked is None:
        return None
    why = locked_export.difference(recipe.locked, recipe)
    if why is not None:
        print(f"note: {why}; exporting the class again", file=sys.stderr)
    return None if why else recipe.locked


def check_packages(recipe: Recipe, locked: Path | None) -> None:
    """Raise ModuleNotFoundError if a package is missing that the build needs, UserError if a class is."""
    if recipe.model is None and recipe.runtime != EAGER:
        raise UserError(f"{recipe.weights} has no class to export; build it from one: MODEL=file.py")
    runs_onnx = recipe.runtime == ONNX or recipe.weights.suffix == ONNX_SUFFIX
    need("model_archiver", *(["onnxruntime"] if runs_onnx else []))
    if not locked and not (runs_onnx and recipe.model is None):
        need_torch(*(EXPORTERS if recipe.runtime == ONNX else ["torch"]))


def scratch_beside(mar: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a temporary folder that is removed even if SIGTERM comes while it is made."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return tempfile.TemporaryDirectory(prefix=".build-", dir=mar.parent)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def sealed_in(
    scratch: Path, recipe: Recipe, source: Source, locked: Path | None, output: int | None = None
) -> Path | None:
    """Run the archiver, then the seal; return None if one of them failed, after it printed why.

    `locked` is the folder of a locked export that fits; without one, torch computes everything anew.
    `output` is where to print what was built, as subprocess has it.
    """
    extra = scratch / "extra"
    extra.mkdir()
    for name, file in recipe.members.items():
        (extra / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, extra / name)
    archiver = [
        sys.executable, "-P", "-c", ARCHIVER,
        f"--model-name={recipe.name}", f"--version={recipe.version}", f"--handler={HANDLER}",
        *([f"--model-file={recipe.model.absolute()}"] if recipe.model else []),
        f"--serialized-file={recipe.weights.absolute()}", f"--config-file={recipe.config.absolute()}",
        *([f"--requirements-file={recipe.requirements.absolute()}"] if recipe.requirements else []),
        "--extra-files=extra", "--export-path=.",
    ]  # fmt: skip
    # The archiver deletes and fills a folder named after the model in TMPDIR, so each build has its own.
    environ = os.environ | {"TMPDIR": str(scratch.absolute())}
    if subprocess.run(archiver, cwd=scratch, env=environ, check=False).returncode:
        return None
    sealed = scratch / "sealed.mar"
    seal = [
        sys.executable, "-P", "-m", "marctl", "seal", str(scratch / f"{recipe.name}.mar"), str(sealed),
        f"--golden={recipe.golden}", f"--runtime={recipe.runtime}",
        *([f"--figures={recipe.figures}"] if recipe.figures else []),
        *([f"--locked={locked}"] if locked else []),
        f"--commit={source.commit}", f"--created={source.created}",
    ]  # fmt: skip
    # TorchScript's compiler writes sets in iteration order, so without this the file would differ.
    environ = os.environ | {"PYTHONHASHSEED": "0"}
    return None if subprocess.run(seal, env=environ, stdout=output, check=False).returncode else sealed


def _given(arguments: argparse.Namespace, before: Mapping[str, str]) -> dict[str, str]:
    """Return the options given now or for an earlier build; an empty one means "none"."""
    given = {key: value for key in OPTIONS if (value := getattr(arguments, key)) is not None}
    model = given.get("model")
    if model and Path(model).is_dir() and model != before.get("model"):
        before = {key: value for key, value in before.items() if key not in OF_A_FOLDER}
    return {**before, **given}
