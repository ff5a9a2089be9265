"""A recipe: everything that goes into an archive, from a model folder and the options given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import classifier
from classifier import canonical
from classifier.canonical import LABEL_FILE
from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from classifier.golden import FOLDER as GOLDEN_FOLDER
from classifier.runtime import MEMBERS
from marctl.archive.mar import NAME
from marctl.build.model_folder import DEFAULT, FIRST_VERSION, LOCKED, extra_files_of, model_name, options_of
from marctl.errors import UserError
from marctl.export.runtime_member import EAGER, RUNTIMES, unknown

# Found beside the package, never by import: an environment may contain an older one.
INSIDE = Path(classifier.__file__).resolve().parents[1]
HANDLER = INSIDE / "convnet_handler.py"
PACKAGE = Path(classifier.__file__).resolve().parent
ONNX = "onnx"
# Defaults for a class file without a folder.
NO_FOLDER = {"version": FIRST_VERSION, "labels": "", "requirements": ""}
NEEDED = {"model", "weights", "config", "golden"}
# The options that name a file, and the variable for each.
FILES = {"model": "MODEL", "weights": "WEIGHTS", "config": "CONFIG", "labels": "LABELS", "figures": "FIGURES"}
# Members that the seal adds.
RESERVED = (
    GOLDEN_ANSWERS, GOLDEN_FOLDER, canonical.PROVENANCE, "model-card.md", *MEMBERS.values(), "MAR-INF",
)  # fmt: skip


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
    locked: Path | None = None  # the folder of the locked export

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
    if runtime not in RUNTIMES:
        raise unknown(runtime)
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
        folder / LOCKED if is_folder and (folder / LOCKED).is_dir() else None,
    )  # fmt: skip
    _check_names(recipe)
    return recipe


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
