"""A model folder's locked export: what torch made of the class, kept so that a build needs no torch.

Like a lock of dependencies, it names what it was made from and counts only for exactly that.

locked/
model.onnx              the class with its weights, exported
answers.json            the outputs of the class for the golden images, computed in float64
lock.json               SHA-256 of what they were made from and of both files, and the exporter's versions
"""

from __future__ import annotations

import hashlib
import json
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from classifier import golden, runtime
from classifier.canonical import MANIFEST
from classifier.contract import MODEL_KEYS, OUTPUTS, BadContract, Contract, read_label_file
from classifier.outputs import KINDS
from classifier.runtime import MEMBERS
from classifier.runtime.eager import COMPILE
from marctl import build, export
from marctl.build.computed import Computed
from marctl.build.exporters import EXPORTERS, version
from marctl.build.golden_images import golden_images
from marctl.build.model_folder import DEFAULT
from marctl.build.proving import pixels_of
from marctl.build.recipe import ONNX, Recipe, recipe_of
from marctl.errors import UserError
from marctl.records import digest, digest_of

MODEL, ANSWERS, LOCK = "model.onnx", "answers.json", "lock.json"
OUTPUTS_KIND, FILES = "outputs", "files"
# The code that makes an export and computes the golden answers.
CODE = [
    Path(str(package.__file__)).with_name(f"{name}.py")
    for package, names in {
        export: "batches export to_onnx",
        runtime: "eager torch",
        build: "compute model_check",
    }.items()
    for name in names.split()
]


def difference(folder: Path, recipe: Recipe) -> str | None:
    """Return why a build cannot use the export locked in a folder, or None if it can.

    Raises UserError and BadContract.
    """
    told = _lock_of(folder)
    changed = [name for name, value in made_from(recipe).items() if told.get(name) != value]
    if not changed:
        return None
    # `make export` exports the folder's own files, not what options put in their place.
    remedy = f" ({_remedy(folder)})" if _used(recipe) == _used_by_default(folder.parent) else ""
    return f"{folder} does not match the {', '.join(changed)}{remedy}"


def made_from(recipe: Recipe) -> dict[str, str]:
    """Return what an export depends on: the SHA-256 of each input, and the exporters' versions."""
    config, contract = _contract(recipe)
    images = golden_images(recipe.golden)
    files = [file for file in (recipe.model, *recipe.extra_files) if file]
    # How TorchServe runs the model does not matter.
    told = [contract.to_dict(), *(config.get(key) for key in (*MODEL_KEYS, COMPILE))]
    packages = [recipe.requirements] if recipe.requirements else []
    # What the model is given, so that a change in the preparation counts, too.
    pixels = dict(zip(images, pixels_of(contract, images), strict=True))
    return {
        "class": digest_of(word for file in files for word in (file.name, digest(file))),
        "weights": digest(recipe.weights),
        "contract": digest_of([yaml.safe_dump(told)]),
        "requirements": digest_of(digest(file) for file in packages),
        "golden images": digest_of(
            word for name, one in pixels.items() for word in (name, _digest(one.tobytes()))
        ),
        "exporting code": digest_of(digest(file) for file in CODE),
        **{name: version(name) for name in EXPORTERS},
    }


def read(folder: Path) -> Computed:
    """Return a locked export. Raises UserError if one of its files is not the one that was locked."""
    told = _lock_of(folder)
    model, answers = (_locked_file(folder, name, told) for name in (MODEL, ANSWERS))
    return Computed(json.loads(answers), told[OUTPUTS_KIND], {MEMBERS[ONNX]: model}, told["torch"])


def write(folder: Path, made: Mapping[str, str], archive: Path) -> None:
    """Lock what a sealed archive has, which was computed anew from `made`."""
    with zipfile.ZipFile(archive) as mar:
        answers = json.loads(mar.read(golden.ANSWERS))["pictures"]
        files = {MODEL: mar.read(MEMBERS[ONNX]), ANSWERS: _json(answers)}
        config = json.loads(mar.read(MANIFEST))["model"]["configFile"]
        kind = yaml.safe_load(mar.read(config))[OUTPUTS]
    lock = {**made, OUTPUTS_KIND: kind, FILES: {name: _digest(data) for name, data in files.items()}}
    folder.mkdir(exist_ok=True)
    # The lock comes last: files without it do not count.
    (folder / LOCK).unlink(missing_ok=True)
    for name, data in {**files, LOCK: _json(lock)}.items():
        (folder / name).write_bytes(data)


def _lock_of(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        if isinstance(told, dict) and isinstance(told.get(FILES), dict) and told.get(OUTPUTS_KIND) in KINDS:
            return told
        reason = f"it does not name {FILES} and {OUTPUTS_KIND}"
    except (OSError, ValueError) as error:
        reason = str(error.strerror if isinstance(error, OSError) else error)
    raise UserError(f"{folder / LOCK} cannot be read: {reason}; {_remedy(folder)}, or delete {folder}")


def _used(recipe: Recipe) -> tuple[Path | None, ...]:
    return (recipe.model, recipe.weights, recipe.config, recipe.labels, recipe.golden)


def _used_by_default(model: Path) -> tuple[Path | None, ...]:
    try:
        return _used(recipe_of(None, {"model": str(model)}))
    except UserError:  # it has, say, two files of weights, and an option chose one
        return ()


def _remedy(folder: Path) -> str:
    model = folder.parent
    return "export it again: make export" + (f" MODEL={shlex.quote(str(model))}" if model != DEFAULT else "")


def _locked_file(folder: Path, name: str, told: Mapping[str, Any]) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise UserError(f"{folder / name} cannot be read: {error.strerror}; {_remedy(folder)}") from error
    if _digest(data) != told[FILES].get(name):
        raise UserError(f"{folder / name} is not the file that {LOCK} names; {_remedy(folder)}")
    return data


def _contract(recipe: Recipe) -> tuple[dict[str, Any], Contract]:
    """Return the parsed model-config.yaml and the contract in it. Raises BadContract."""
    try:
        config = yaml.safe_load(recipe.config.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise BadContract(f"{recipe.config} cannot be read: {error}") from error
    return config, Contract.from_config(config, read_label_file(recipe.labels) if recipe.labels else None)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
