"""Build an archive: torch-model-archiver bundles class, weights, contract and handler, then it is sealed.

It is rebuilt only if one of its inputs has changed, and never overwrites a file that was not built here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import classifier
from classifier import canonical
from classifier.canonical import LABEL_FILE
from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from classifier.golden import FOLDER as GOLDEN_FOLDER
from classifier.runtime import MEMBERS
from marctl import __version__
from marctl.archive.mar import NAME, SUFFIX, is_signature
from marctl.build.commit import Source, source_of
from marctl.build.model_folder import (
    DEFAULT,
    FIRST_VERSION,
    archive_of,
    extra_files_of,
    model_name,
    options_of,
)  # fmt: skip
from marctl.errors import UserError
from marctl.extras import need
from marctl.records import Records, digest, digest_of

# Found beside the package, never by import: an environment may contain an older one.
INSIDE = Path(classifier.__file__).resolve().parents[1]
HANDLER = INSIDE / "convnet_handler.py"
PACKAGE = Path(classifier.__file__).resolve().parent
TOOL = Path(__file__).resolve().parents[1]
# The code of the build: a change in it may change the archive.
BUILDERS = [file for part in ("archive", "build", "export") for file in sorted((TOOL / part).glob("*.py"))]
PACKAGES = ("torch", "torch-model-archiver", "onnx", "onnxscript")
# The modules that every build needs, and those for an archive that runs on ONNX Runtime.
MODULES, EXPORTERS = ("model_archiver", "ts", "torch"), ("onnx", "onnxscript", "onnxruntime")
# What the archiver's command runs; running its package with -m gives a warning.
ARCHIVER = "from model_archiver.model_packaging import generate_model_archive as run; run()"
EAGER, ONNX = "eager", "onnx"
OPTIONS = ("version", "model", "weights", "config", "labels", "golden", "figures", "runtime")
# Options that belong to a model folder: with another folder, the earlier ones no longer apply.
OF_A_FOLDER = ("weights", "config", "labels", "golden", "figures")
# Defaults for a class file without a folder.
NO_FOLDER = {"version": FIRST_VERSION, "labels": "", "requirements": ""}
NEEDED = {"model", "weights", "config", "golden"}
# The options that name a file, and the variable for each.
FILES = {"model": "MODEL", "weights": "WEIGHTS", "config": "CONFIG", "labels": "LABELS", "figures": "FIGURES"}
# Members that the seal adds.
RESERVED = (
    GOLDEN_ANSWERS, GOLDEN_FOLDER, canonical.PROVENANCE, "model-card.md", *MEMBERS.values(), "MAR-INF",
)  # fmt: skip
REMEDY = "move it away, or build elsewhere: make archive MAR=model_store/other.mar"


@dataclass(frozen=True)
class Recipe:
    """Everything that goes into an archive."""

    name: str
    version: str
    model: Path | None
    weights: Path
    config: Path
    labels: Path | None
    golden: Path
    figures: Path | None
    runtime: str
    requirements: Path | None = None
    extra_files: tuple[Path, ...] = ()

    @property
    def members(self) -> dict[str, Path]:
        """The files that the archiver bundles besides the handler, by their names in the archive."""
        modules = sorted(PACKAGE.rglob("*.py"))
        files = {file.relative_to(INSIDE).as_posix(): file for file in modules}
        files |= {file.name: file for file in self.extra_files}
        return files | ({LABEL_FILE: self.labels} if self.labels else {})

    @property
    def own(self) -> list[Path]:
        """The model's files: their commit is the archive's. The tool's version identifies the handler."""
        files = (self.weights, self.model, self.config, self.labels, self.figures, self.requirements)
        images = [file for file in sorted(self.golden.glob("[!.]*")) if file.is_file()]
        return [file for file in files if file] + [*self.extra_files, *images]

    @property
    def sources(self) -> list[Path]:
        """Every file that the archive's content comes from."""
        return [*self.own, HANDLER, *self.members.values()]


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
    need(*MODULES, *(EXPORTERS if recipe.runtime == ONNX else ()))
    with _scratch_beside(mar) as scratch:
        sealed = _sealed(recipe, source, Path(scratch))
        if sealed is None:
            return 1
        sha256 = digest(sealed)
        # Checked again: somebody may have put another file there during the build.
        records.check_may_write(mar, REMEDY)
        signature = mar.with_name(mar.name + SUFFIX)
        if mar.exists() and digest(mar) != sha256 and is_signature(signature):
            signature.unlink()  # it belongs to the archive that is being replaced
        records.write(mar, sha256, inputs, given, made_of)
        sealed.replace(mar)
    return 0


def recipe_of(name: str | None, options: Mapping[str, str]) -> Recipe:
    """Return what goes into an archive, from options given as strings.

    Options that are not given come from the model folder. Raises UserError if an option names no file, or
    cannot be part of an archive.
    """
    given = dict(options)
    folder = Path(given.get("model", DEFAULT))
    if is_folder := given.get("model") != "" and (folder == DEFAULT or folder.is_dir()):
        given.pop("model", None)
    else:  # a class file, or none: everything else is given, or comes from this checkout's own folder
        folder = DEFAULT
        given = NO_FOLDER | given
    chosen = {**({} if given.keys() >= NEEDED else options_of(folder, given)), **given}
    if not chosen["weights"] or not chosen["config"]:
        raise UserError("an archive needs weights and a contract: make archive WEIGHTS=file CONFIG=file")
    runtime = chosen.get("runtime") or (ONNX if chosen["model"] else EAGER)
    if "figures" not in chosen:
        figures = Path(chosen["weights"]).with_suffix(".json")
        chosen["figures"] = str(figures) if figures.is_file() else ""
    name = model_name(folder) if name is None else name
    for key, value in (("NAME", name), ("VERSION", chosen["version"])):
        if not NAME.fullmatch(value):
            raise UserError(f"{key}={value!r} cannot be part of a URL; use letters, digits, - _ .")
    files = {key: _file(variable, chosen[key]) for key, variable in FILES.items()}
    requirements = chosen["requirements"]
    recipe = Recipe(
        name, chosen["version"], files["model"], Path(chosen["weights"]), Path(chosen["config"]),
        files["labels"], Path(chosen["golden"]), files["figures"], runtime,
        Path(requirements) if requirements else None, tuple(extra_files_of(folder)) if is_folder else (),
    )  # fmt: skip
    _check_names(recipe)
    return recipe


def inputs_of(recipe: Recipe) -> str:
    """Return the SHA-256 of everything that the archive's bytes depend on, except the commit and its time."""
    content = [word for file in recipe.sources for word in (str(file), digest(file))]
    builders = [digest(file) for file in BUILDERS]
    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    words = (recipe.name, recipe.version, recipe.runtime, __version__)
    return digest_of([*words, *content, *builders, *versions])


def _file(variable: str, value: str) -> Path | None:
    if not value:
        return None
    path = Path(value)
    if not path.is_file():
        raise UserError(f"{variable}={value} is not a file; name one: make archive {variable}=path/to/file")
    return path


def _check_names(recipe: Recipe) -> None:
    """Raise UserError if two files would become one member: the archiver silently keeps the last one."""
    taken = {HANDLER.name, PACKAGE.name, f"{PACKAGE.name}.py", *recipe.members, *RESERVED}
    for key in ("model", "weights", "config", "requirements"):
        path: Path | None = getattr(recipe, key)
        if path is None:
            continue
        if path.name in taken:
            raise UserError(
                f"{key.upper()}={path}: the archive already has a file {path.name} of its own; rename yours"
            )
        taken.add(path.name)
    for path in recipe.sources:
        if not path.name.isprintable() or "\\" in path.name:
            raise UserError(
                f"the file name {path.name!r} has a character that archives do not allow; rename it"
            )


def _scratch_beside(mar: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a temporary folder that is removed even if SIGTERM comes while it is made."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return tempfile.TemporaryDirectory(prefix=".build-", dir=mar.parent)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _sealed(recipe: Recipe, source: Source, scratch: Path) -> Path | None:
    """Run the archiver, then the seal; return None if one of them failed, after it printed why."""
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
        f"--commit={source.commit}", f"--created={source.created}",
    ]  # fmt: skip
    # TorchScript's compiler writes sets in iteration order, so without this the file would differ.
    environ = os.environ | {"PYTHONHASHSEED": "0"}
    return None if subprocess.run(seal, env=environ, check=False).returncode else sealed


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _given(arguments: argparse.Namespace, before: Mapping[str, str]) -> dict[str, str]:
    """Return the options given now or for an earlier build; an empty one means "none"."""
    given = {key: value for key in OPTIONS if (value := getattr(arguments, key)) is not None}
    model = given.get("model")
    if model and Path(model).is_dir() and model != before.get("model"):
        before = {key: value for key, value in before.items() if key not in OF_A_FOLDER}
    return {**before, **given}
