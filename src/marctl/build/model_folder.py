"""A model is a folder: the class, the weights, the contract, and golden images.

mine/resnet18/
resnet18.py             the class, alone in its file; absent if the weights need none
resnet18.pth            the weights
model-config.yaml       the contract; its section `archive` has what cannot be derived from the files
golden/                 images that the model has to recognise
index_to_name.json      labels, if the contract does not list them
resnet18.json           figures of training and evaluation
requirements.txt        further packages that the class needs
locked/                 the class, exported: with it a build needs no torch (make export)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from classifier.canonical import LABEL_FILE
from marctl.errors import UserError

DEFAULT, STORE = Path("model"), Path("model_store")
CONFIG, GOLDEN, REQUIREMENTS, LOCKED = "model-config.yaml", "golden", "requirements.txt", "locked"
SECTION, KEYS = "archive", ("name", "version", "model", "weights", "extra_files")
FIRST_VERSION = "1.0"
WITHOUT_CLASS = (".onnx", ".pt")
WHAT = {"model": "class", "weights": "weights"}
WEIGHTS = (".pth", ".safetensors", *WITHOUT_CLASS)
HOW = "docs/your-own-model.md shows such a folder"


def options_of(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return a folder's options, as if given one by one; those in `given` are not looked up.

    Raises UserError, which names the folder and what is missing.
    """
    told = _section(folder)
    found = {
        "version": told.get("version", FIRST_VERSION),
        "config": str(folder / CONFIG),
        "golden": str(folder / GOLDEN),
    }
    if "weights" not in given:
        found["weights"] = str(_weights(folder, told))
    if "model" not in given:
        weights = given.get("weights", found.get("weights", ""))
        found["model"] = _class(folder, told, needed=not weights.endswith(WITHOUT_CLASS))
    for option, name in (("labels", LABEL_FILE), ("requirements", REQUIREMENTS)):
        found[option] = str(folder / name) if (folder / name).is_file() else ""
    return found


def extra_files_of(folder: Path) -> list[Path]:
    """Return the extra files of a folder's archive. Raises UserError."""
    names = _section(folder).get("extra_files", [])
    return [_named(folder, "extra_files", name) for name in names]


def name_of(given: Mapping[str, str]) -> str:
    """Return the model's name: NAME, or that of the folder MODEL or the default folder. Raises UserError."""
    if "NAME" in given:
        return given["NAME"]
    folder = Path(given.get("MODEL") or DEFAULT)
    return model_name(folder if folder.is_dir() else DEFAULT)


def model_name(folder: Path) -> str:
    """Return the name in a folder's contract, or the folder's own. Raises UserError."""
    return str(_section(folder).get("name", folder.resolve().name))


def archive_of(given: Mapping[str, str]) -> str:
    """Return the archive's path: MAR, or the one for the model's name. Raises UserError."""
    return given.get("MAR") or str(STORE / f"{name_of(given)}.mar")


def _section(folder: Path) -> dict[str, Any]:
    """Return the section `archive` of a folder's contract. Raises UserError."""
    file = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name a model folder: make archive MODEL=folder; {HOW}")
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"the model folder {folder} has no {CONFIG}; write the contract: {HOW}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    section = told.get(SECTION, {}) if isinstance(told, dict) else {}
    if not isinstance(section, dict) or (unknown := [key for key in section if key not in KEYS]):
        which = ", ".join(map(str, unknown)) if isinstance(section, dict) else repr(section)
        raise UserError(f"{file}: {SECTION} cannot contain {which}; it takes {', '.join(KEYS)}")
    for key in ("name", "version", "model", "weights"):
        if key in section and not isinstance(section[key], str):
            raise UserError(f"{file}: {SECTION}.{key} is {section[key]!r}; write a string, in quotes")
    extra = section.get("extra_files", [])
    if not isinstance(extra, list) or not all(isinstance(name, str) for name in extra):
        raise UserError(f"{file}: {SECTION}.extra_files is {extra!r}; write a list of file names")
    return section


def _weights(folder: Path, told: Mapping[str, Any]) -> Path:
    if "weights" in told:
        return _named(folder, "weights", told["weights"])
    found = sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS and file.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"the model folder {folder} has no weights; put a file there that ends in one of "
                        f"{', '.join(WEIGHTS)}")  # fmt: skip
    raise UserError(_which(folder, found, "weights"))


def _class(folder: Path, told: Mapping[str, Any], *, needed: bool) -> str:
    if "model" in told:
        return str(_named(folder, "model", told["model"])) if told["model"] else ""
    found = sorted(file for file in folder.glob("*.py") if file.is_file())
    if len(found) > 1:
        raise UserError(_which(folder, found, "model"))
    if needed and not found:
        raise UserError(f"the model folder {folder} has no class for its weights; put its .py file there")
    return str(found[0]) if found else ""


def _named(folder: Path, key: str, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"{folder / CONFIG}: {SECTION}.{key} names {name}, but {folder} has no such file")
    return folder / name


def _which(folder: Path, found: list[Path], key: str) -> str:
    names = ", ".join(file.name for file in found)
    what = f"{len(found)} files that may be its {WHAT[key]} ({names})"
    remedy = f"name one in {CONFIG}: {SECTION}: {{{key}: {found[0].name}}}"
    return f"the model folder {folder} has {what}; {remedy}"
