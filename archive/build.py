"""Build an archive: torch-model-archiver's bundle of class, weights, contract and handler, then sealed.

Built anew only when something that goes into it has changed, and only over what was built here before.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import canonical
from build_records import NotOurs, Records, digest, digest_of
from mar import GOLDEN_ANSWERS, GOLDEN_FOLDER, NAME, SUFFIX, is_signature
from source import BadSource, source_of

ROOT = Path(__file__).resolve().parents[1]
HANDLER = ROOT / "handler" / "convnet_handler.py"
# What builds: where it changes, the archive may come out otherwise.
BUILDERS = [*sorted((ROOT / "archive").glob("*.py")), *sorted((ROOT / "exports").glob("*.py"))]
PACKAGES = ("torch", "torch-model-archiver", "onnx", "onnxscript")
LABEL_FILE = "index_to_name.json"  # the one name under which TorchServe reads labels
EAGER, ONNX = "eager", "onnx"
DEFAULTS = {
    "version": "1.0",
    "model": "model/convnet.py",
    "weights": "model/convnet.pth",
    "config": "model/model-config.yaml",
    "labels": "",
    "golden": "tests/images",
}
# Those that name a file, and what has to be said where it is not there.
FILES = {"model": "MODEL", "weights": "WEIGHTS", "config": "CONFIG", "labels": "LABELS", "figures": "FIGURES"}
# Members that the seal adds.
RESERVED = (
    GOLDEN_ANSWERS, GOLDEN_FOLDER, canonical.PROVENANCE, "model-card.md", "runtime.pt", "runtime.onnx",
    "runtime.pt2", "MAR-INF",
)  # fmt: skip
REMEDY = "move it away, or build elsewhere: make archive MAR=model_store/other.mar"
STOPPED = 143  # the exit status after SIGTERM, as a shell has it


class NotBuilt(ValueError):
    """An option that no archive can be built with; the text says which, and what to write."""


@dataclass(frozen=True)
class Recipe:
    """All that goes into an archive."""

    name: str
    version: str
    model: Path | None
    weights: Path
    config: Path
    labels: Path | None
    golden: Path
    figures: Path | None
    runtime: str

    @property
    def members(self) -> dict[str, Path]:
        """The files that the archiver bundles besides the handler, by their names in the archive."""
        modules = [file for file in sorted(HANDLER.parent.glob("*.py")) if file != HANDLER]
        files = {file.name: file for file in (*modules, ROOT / "archive" / "canonical.py")}
        return files | ({LABEL_FILE: self.labels} if self.labels else {})

    @property
    def sources(self) -> list[Path]:
        """Every file that the archive's content comes from."""
        own = (self.model, self.weights, self.config, self.labels, self.figures)
        pictures = [file for file in sorted(self.golden.glob("[!.]*")) if file.is_file()]
        return [file for file in own if file] + [HANDLER, *self.members.values(), *pictures]


def main() -> int:
    """Build one archive, or say that it is up to date; return the exit status."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    records = Records()
    try:
        with records.making(arguments.mar):
            return _build(arguments, records)
    except (NotBuilt, NotOurs, BadSource) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if arguments.if_needed and arguments.mar.is_file():  # a checkout that may be read, and no more
            return 0
        where = error.filename or arguments.mar
        print(f"error: {where}: {error.strerror or error}; nothing was built", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _build(arguments: argparse.Namespace, records: Records) -> int:
    mar: Path = arguments.mar
    if arguments.if_needed and os.path.lexists(mar) and not records.is_ours(mar):
        print(f"note: {mar} was not built by this checkout; it is used as it is", file=sys.stderr)
        return 0
    records.check_may_write(mar, REMEDY)
    before = records.of(mar)
    given = {**(before.options if before else {}), **_given(arguments)}
    recipe = recipe_of(arguments.name, given)
    inputs = inputs_of(recipe)
    if records.is_fresh(mar, inputs):
        if not arguments.if_needed:
            print(f"{mar} is up to date")
        return 0
    if not mar.parent.is_dir():
        raise NotBuilt(f"there is no folder {mar.parent} to build {mar.name} in; make it: mkdir -p")
    with _scratch_beside(mar) as scratch:
        sealed = _sealed(recipe, Path(scratch))
        if sealed is None:
            return 1
        sha256 = digest(sealed)
        # Once more: somebody may have put a file of theirs there while this was built.
        records.check_may_write(mar, REMEDY)
        signature = mar.with_name(mar.name + SUFFIX)
        if mar.exists() and digest(mar) != sha256 and is_signature(signature):
            signature.unlink()  # of what is not there any more
        records.write(mar, sha256, inputs, given)
        sealed.replace(mar)
    return 0


def recipe_of(name: str, options: Mapping[str, str]) -> Recipe:
    """Return what goes into an archive by its options, which are words, as people write them.

    Raises NotBuilt where one names no file, or no archive can have it.
    """
    chosen = {**DEFAULTS, **options}
    runtime = chosen.get("runtime") or (ONNX if chosen["model"] else EAGER)
    if not chosen["weights"] or not chosen["config"]:
        raise NotBuilt("an archive needs weights and a contract: make archive WEIGHTS=file CONFIG=file")
    if "figures" not in chosen:
        figures = Path(chosen["weights"]).with_suffix(".json")
        chosen["figures"] = str(figures) if figures.is_file() else ""
    for key, value in (("NAME", name), ("VERSION", chosen["version"])):
        if not NAME.fullmatch(value):
            raise NotBuilt(f"{key}={value!r} cannot be part of an address; use letters, digits, - _ .")
    files = {key: _file(variable, chosen[key]) for key, variable in FILES.items()}
    recipe = Recipe(
        name, chosen["version"], files["model"], Path(chosen["weights"]), Path(chosen["config"]),
        files["labels"], Path(chosen["golden"]), files["figures"], runtime,
    )  # fmt: skip
    _check_names(recipe)
    return recipe


def inputs_of(recipe: Recipe) -> str:
    """Return the SHA-256 of all that the archive's bytes depend on."""
    source = source_of(recipe.sources)
    content = [word for file in recipe.sources for word in (str(file), digest(file))]
    builders = [digest(file) for file in BUILDERS]
    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    words = (recipe.name, recipe.version, recipe.runtime, source.commit, str(source.created))
    return digest_of([*words, *content, *builders, *versions])


def _file(variable: str, value: str) -> Path | None:
    if not value:
        return None
    path = Path(value)
    if not path.is_file():
        raise NotBuilt(f"{variable}={value} is no file; name one: make archive {variable}=path/to/file")
    return path


def _check_names(recipe: Recipe) -> None:
    """Raise NotBuilt where two files would be one member: the archiver keeps the last one without a word."""
    taken = {HANDLER.name, *recipe.members, *RESERVED}
    for key in ("model", "weights", "config"):
        path: Path | None = getattr(recipe, key)
        if path is None:
            continue
        if path.name in taken:
            raise NotBuilt(
                f"{FILES[key]}={path}: the archive has a file {path.name} of its own already; rename yours"
            )
        taken.add(path.name)
    for path in recipe.sources:
        if not path.name.isprintable() or "\\" in path.name:
            raise NotBuilt(f"the file name {path.name!r} has a character that no archive can hold; rename it")


def _scratch_beside(mar: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a folder that is removed at the end, whenever SIGTERM comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return tempfile.TemporaryDirectory(prefix=".build-", dir=mar.parent)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _sealed(recipe: Recipe, scratch: Path) -> Path | None:
    """Have the archiver bundle and the seal finish; None where one of them has said why it cannot."""
    extra = scratch / "extra"
    extra.mkdir()
    for name, file in recipe.members.items():
        shutil.copyfile(file, extra / name)
    archiver = [
        str(Path(sys.executable).with_name("torch-model-archiver")),
        f"--model-name={recipe.name}", f"--version={recipe.version}", f"--handler={HANDLER}",
        *([f"--model-file={recipe.model.absolute()}"] if recipe.model else []),
        f"--serialized-file={recipe.weights.absolute()}", f"--config-file={recipe.config.absolute()}",
        "--extra-files=extra", "--export-path=.",
    ]  # fmt: skip
    # It deletes and fills a folder of the model's name in TMPDIR: each build has its own.
    environ = os.environ | {"TMPDIR": str(scratch.absolute())}
    if subprocess.run(archiver, cwd=scratch, env=environ, check=False).returncode:
        return None
    sealed = scratch / "sealed.mar"
    seal = [
        sys.executable, str(ROOT / "archive" / "seal.py"), str(scratch / f"{recipe.name}.mar"), str(sealed),
        f"--golden={recipe.golden}", f"--runtime={recipe.runtime}",
        *([f"--figures={recipe.figures}"] if recipe.figures else []),
        "--sources", *map(_word, recipe.sources),
    ]  # fmt: skip
    # TorchScript's compiler writes what a set holds in the order of that set: the file would differ.
    environ = os.environ | {"PYTHONHASHSEED": "0"}
    return None if subprocess.run(seal, env=environ, check=False).returncode else sealed


def _word(path: Path) -> str:
    """Return a path that no program takes for an option."""
    return str(path) if path.is_absolute() or not str(path).startswith("-") else f"./{path}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _given(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the options that were given, the empty ones too: they say "none"."""
    return dict(_pairs(arguments))


def _pairs(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for key in (*DEFAULTS, "figures", "runtime"):
        if (value := getattr(arguments, key)) is not None:
            yield key, value


def _stop(*_: object) -> NoReturn:
    raise SystemExit(STOPPED)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mar", type=Path, help="the .mar file to build")
    parser.add_argument("--name", default="convnet", help="the model's name, part of its address")
    parser.add_argument("--version", help="the model's version")
    parser.add_argument("--model", help="the file of the class; empty for weights that need none")
    parser.add_argument("--weights", help=".pth, .safetensors, .pt or .onnx")
    parser.add_argument("--config", help="the contract, model-config.yaml")
    parser.add_argument("--labels", help="JSON from index to label")
    parser.add_argument("--golden", help="a folder of images that the model has to know")
    parser.add_argument("--figures", help="JSON with the figures of training and evaluation")
    parser.add_argument("--runtime", help="what answers: eager, torchscript, onnx or aoti")
    parser.add_argument("--if-needed", action="store_true", help="leave an archive that was not built here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
