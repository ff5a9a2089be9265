"""Seal what torch-model-archiver built: add golden answers, records and digests, and fix its bytes."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import time
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from classifier import canonical, golden
from classifier.canonical import LABEL_FILE, MANIFEST
from classifier.contract import OUTPUTS, BadContract, Contract
from marctl import __version__
from marctl.build import locked_export
from marctl.build.compute import computed
from marctl.build.golden_images import golden_images
from marctl.build.model_card import model_card
from marctl.build.proving import prove
from marctl.errors import UserError
from marctl.export.runtime_member import EAGER

# The archiver's own format of `createdOn`.
CREATED_ON = "%d/%m/%Y %H:%M:%S"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archiver's .mar, and what to add to it."""
    parser.add_argument("raw", type=Path, help="the .mar as torch-model-archiver built it")
    parser.add_argument("out", type=Path, help="the sealed archive to write")
    parser.add_argument("--golden", type=Path, required=True, help="a folder of images")
    parser.add_argument("--figures", type=Path, help="JSON with the figures of training and evaluation")
    parser.add_argument("--runtime", default=EAGER, help="the runtime: eager, torchscript, onnx or aoti")
    parser.add_argument("--locked", type=Path, help="the folder of a locked export that fits, to be used")
    parser.add_argument("--commit", required=True, help="the last commit that touched the model's files")
    parser.add_argument("--created", type=int, required=True, help="its time in seconds since 1970")


def run(arguments: argparse.Namespace) -> int:
    """Seal one archive and print its name, version, size and digest."""
    members, notes = seal(arguments)
    _write(arguments.out, members)
    if arguments.runtime != EAGER:
        prove(arguments.out)
    report(arguments.out, json.loads(members[MANIFEST])["model"], notes)
    return 0


def seal(arguments: argparse.Namespace) -> tuple[dict[str, bytes], list[str]]:
    """Return all members of the sealed archive by name, and notes to print."""
    with zipfile.ZipFile(arguments.raw) as raw:
        members = {info.filename: raw.read(info) for info in raw.infolist() if not info.is_dir()}
    manifest = json.loads(members[MANIFEST])
    told = _contract(members, manifest)
    images = golden_images(arguments.golden)
    if arguments.locked:
        model = locked_export.read(arguments.locked)
    else:
        model = computed(arguments.raw, images, arguments.runtime)
    contract = replace(told, outputs=model.outputs)
    members[golden.ANSWERS] = _json({"pictures": model.answers})
    members |= model.exported
    provenance = _provenance(manifest["model"], arguments, model.torch)
    members["model-card.md"] = model_card(provenance, contract, images).encode()
    config = manifest["model"]["configFile"]
    members[config] = _with_outputs(members[config], str(contract.outputs))
    members |= {f"{golden.FOLDER}/{name}": body for name, body in images.items()}
    members[canonical.PROVENANCE] = _json(provenance)
    moment = time.gmtime(max(arguments.created, canonical.EARLIEST))
    members[MANIFEST] = _json({**manifest, "createdOn": time.strftime(CREATED_ON, moment)})
    return canonical.with_sums(members), [*_notes(told, contract), *model.notes]


def _notes(told: Contract, decided: Contract) -> list[str]:
    if told.outputs is not None:
        return []
    return [f"outputs: {decided.outputs}, as the golden images show; write it into model-config.yaml"]


def _with_outputs(config: bytes, kind: str) -> bytes:
    """Return a model-config.yaml that names the kind of its outputs, for everything that reads it."""
    parsed = yaml.safe_load(config)
    if OUTPUTS in parsed:
        return config
    told = {**parsed, OUTPUTS: kind}
    line = f"\n\n# Added by the build, from the outputs for the golden images.\n{OUTPUTS}: {kind}\n"
    added = config.rstrip() + line.encode()
    with contextlib.suppress(yaml.YAMLError):
        if yaml.safe_load(added) == told:
            return added
    # Lines cannot be appended to this file, for example to one mapping in braces.
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True).encode()


def _write(path: Path, members: dict[str, bytes]) -> None:
    created = json.loads(members[canonical.PROVENANCE])["created"]
    with path.open("wb") as file:
        canonical.write(members, created, file)


def report(path: Path, model: dict[str, Any], notes: Iterable[str] = ()) -> None:
    """Print what was built, and the notes."""
    data = path.read_bytes()
    print(f"built {model['modelName']} {model['modelVersion']}, {len(data):,} bytes")
    print(f"  sha256 {hashlib.sha256(data).hexdigest()}")
    for note in notes:
        print(f"  {note}")


def _contract(members: dict[str, bytes], manifest: dict[str, Any]) -> Contract:
    """Return the contract. Raises the builder's BadContract: the archive's code would raise its own."""
    config = manifest["model"].get("configFile")
    if config is None:
        raise BadContract("the archive has no model-config.yaml; name it: CONFIG=path/to/model-config.yaml")
    labels = members.get(LABEL_FILE)
    try:
        parsed = yaml.safe_load(members[config])
        label_file = json.loads(labels) if labels else None
    except (yaml.YAMLError, ValueError) as error:
        raise BadContract(f"{config} or {LABEL_FILE} cannot be read: {error}") from error
    return Contract.from_config(parsed, label_file)


def _provenance(model: dict[str, Any], arguments: argparse.Namespace, torch: str) -> dict[str, Any]:
    return {
        "name": model["modelName"],
        "version": model["modelVersion"],
        "source_commit": arguments.commit,
        "created": arguments.created,
        "marctl": __version__,  # the version of the handler
        "runtime": arguments.runtime,
        "torch": torch,
        "figures": _read_figures(arguments.figures) if arguments.figures else None,
    }


def _read_figures(path: Path) -> dict[str, Any]:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the figures in {path} cannot be read: {error}") from error
    if not isinstance(figures, dict):
        raise UserError(
            f"the figures in {path} are not a JSON object; write one, or leave them out: FIGURES="
        )
    return figures


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
