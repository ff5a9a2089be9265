"""Seal what torch-model-archiver built: add golden answers, records and digests, and fix its bytes."""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import time
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from classifier import canonical, golden
from classifier.canonical import LABEL_FILE, MANIFEST
from classifier.classifier import Classifier
from classifier.contract import OUTPUTS, BadContract, Contract
from marctl import __version__
from marctl.archive.opened import Opened
from marctl.build.model_card import model_card
from marctl.build.model_check import check_finite, kind_of_outputs
from marctl.errors import UserError
from marctl.export.batches import try_batches
from marctl.export.export import eager_of
from marctl.export.runtime_member import EAGER, runtime_member

# The archiver's own format of `createdOn`.
CREATED_ON = "%d/%m/%Y %H:%M:%S"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archiver's .mar, and what to add to it."""
    parser.add_argument("raw", type=Path, help="the .mar as torch-model-archiver built it")
    parser.add_argument("out", type=Path, help="the sealed archive to write")
    parser.add_argument("--golden", type=Path, required=True, help="a folder of images")
    parser.add_argument("--figures", type=Path, help="JSON with the figures of training and evaluation")
    parser.add_argument("--runtime", default=EAGER, help="the runtime: eager, torchscript, onnx or aoti")
    parser.add_argument("--commit", required=True, help="the last commit that touched the model's files")
    parser.add_argument("--created", type=int, required=True, help="its time in seconds since 1970")


def run(arguments: argparse.Namespace) -> int:
    """Seal one archive and print its name, version, size and digest."""
    members, notes = seal(arguments)
    _write(arguments.out, members)
    if arguments.runtime != EAGER:
        _prove(arguments.out)
    report(arguments.out, json.loads(members[MANIFEST])["model"], notes)
    return 0


def seal(arguments: argparse.Namespace) -> tuple[dict[str, bytes], list[str]]:
    """Return all members of the sealed archive by name, and notes to print."""
    with zipfile.ZipFile(arguments.raw) as raw:
        members = {info.filename: raw.read(info) for info in raw.infolist() if not info.is_dir()}
    manifest = json.loads(members[MANIFEST])
    _check_contract(members, manifest)
    images = _golden_images(arguments.golden)
    with Opened(arguments.raw, own_names=True) as opened:
        classifier = opened.classifier
        answers = golden_answers(classifier, classifier.eager, images)
        made_up = _try_batches(classifier, images, answers)
        contract, notes = _decided(classifier, answers, made_up)
        members[golden.ANSWERS] = _json({"pictures": answers})
        members |= runtime_member(arguments.runtime, lambda: eager_of(opened), contract)
        provenance = _provenance(manifest["model"], arguments)
        members["model-card.md"] = model_card(provenance, contract, images).encode()
    config = manifest["model"]["configFile"]
    members[config] = _with_outputs(members[config], str(contract.outputs))
    members |= {f"{golden.FOLDER}/{name}": body for name, body in images.items()}
    members[canonical.PROVENANCE] = _json(provenance)
    moment = time.gmtime(max(arguments.created, canonical.EARLIEST))
    members[MANIFEST] = _json({**manifest, "createdOn": time.strftime(CREATED_ON, moment)})
    return canonical.with_sums(members), notes


def _decided(
    classifier: Classifier, answers: dict[str, Any], made_up: dict[str, np.ndarray]
) -> tuple[Contract, list[str]]:
    """Return the contract with the kind of the outputs, and notes to print. Raises UserError."""
    told, notes = classifier.contract.outputs, []
    kind = kind_of_outputs(told, {name: one["outputs"] for name, one in answers.items()}, made_up)
    if told is None:
        notes.append(f"outputs: {kind}, as the golden images show; write it into model-config.yaml")
    if (size := getattr(classifier.model, "size", None)) is not None:
        notes.append(f"the model takes only batches of {size}: other batches are split and filled up")
    return replace(classifier.contract, outputs=kind), notes


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


def _prove(path: Path) -> None:
    """Check the exported model against the eager one's answers, also in batches. Raises UserError."""
    with Opened(path) as opened, zipfile.ZipFile(path) as mar:
        answers = json.loads(mar.read(golden.ANSWERS))["pictures"]
        images = {name: mar.read(f"{golden.FOLDER}/{name}") for name in answers}
        _try_batches(opened.classifier, images, answers)


def golden_answers(classifier: Classifier, model: Any, images: dict[str, bytes]) -> dict[str, Any]:
    """Return label and outputs for each image, from float64 arithmetic if the model allows it.

    In float64 every processor gives the same digits, as far as they are recorded, so the archive's bytes do
    not depend on the machine. Each image is answered alone, so that no other image affects what is recorded.
    Raises UserError if float32 differs from float64 by more than half of the worker's tolerance.
    """
    batch = classifier.preprocess([_pixels(classifier, name, body) for name, body in images.items()])
    eager = np.concatenate([classifier.inference(one[None]) for one in batch]).astype(np.float64)
    check_finite(dict(zip(images, eager, strict=True)))
    exact = eager
    if isinstance(model, torch.nn.Module) and any(True for _ in model.parameters()):
        # A model that creates float32 tensors itself cannot run in float64; its float32 outputs are used.
        with torch.inference_mode(), contextlib.suppress(RuntimeError):
            double = copy.deepcopy(model).double()
            rows = [double(torch.from_numpy(one[None]).double()) for one in batch]
            exact = torch.cat(rows).double().cpu().numpy()
    difference = float(np.abs(eager - exact).max())
    if not difference <= golden.TOLERANCE / 2:
        raise UserError(
            f"the model's float32 outputs differ from its float64 outputs by {difference:.1e}, more than "
            f"half of a worker's tolerance of {golden.TOLERANCE:.0e}: its answers cannot be verified"
        )
    return {
        name: {"label": label, "outputs": [round(value, 9) for value in row]}
        for name, label, row in zip(images, classifier.postprocess(exact), exact.tolist(), strict=True)
    }


def _try_batches(
    classifier: Classifier, images: dict[str, bytes], answers: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Check a handler's answers in batches against the recorded ones. Raises UserError.

    Returns the outputs for made-up images by name.
    """
    batch = classifier.preprocess([_pixels(classifier, name, body) for name, body in images.items()])
    expected = np.array([answers[name]["outputs"] for name in images])
    batch_size = classifier.config.get("batchSize", 1)
    return try_batches(classifier.inference, classifier.contract, batch, expected, batch_size)


def _pixels(classifier: Classifier, name: str, body: bytes) -> Any:
    try:
        return classifier.read_pixels(body)
    except ValueError as error:  # the archive's own BadImage
        raise UserError(f"the golden image {name} cannot be read: {error}") from error


def report(path: Path, model: dict[str, Any], notes: Iterable[str] = ()) -> None:
    """Print what was built, and the notes."""
    data = path.read_bytes()
    print(f"built {model['modelName']} {model['modelVersion']}, {len(data):,} bytes")
    print(f"  sha256 {hashlib.sha256(data).hexdigest()}")
    for note in notes:
        print(f"  {note}")


def _check_contract(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    """Raise the builder's own BadContract: the archive's code would raise a class of its own."""
    config = manifest["model"].get("configFile")
    if config is None:
        raise BadContract("the archive has no model-config.yaml; name it: CONFIG=path/to/model-config.yaml")
    labels = members.get(LABEL_FILE)
    try:
        parsed = yaml.safe_load(members[config])
        label_file = json.loads(labels) if labels else None
    except (yaml.YAMLError, ValueError) as error:
        raise BadContract(f"{config} or {LABEL_FILE} cannot be read: {error}") from error
    Contract.from_config(parsed, label_file)


def _golden_images(folder: Path) -> dict[str, bytes]:
    files = [file for file in sorted(folder.glob("[!.]*")) if file.is_file()] if folder.is_dir() else []
    images = {file.name: file.read_bytes() for file in files}
    if not images:
        raise UserError(f"{folder} has no images; put in a few real ones, or name another folder: GOLDEN=...")
    return images


def _provenance(model: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "name": model["modelName"],
        "version": model["modelVersion"],
        "source_commit": arguments.commit,
        "created": arguments.created,
        "marctl": __version__,  # the version of the handler
        "runtime": arguments.runtime,
        "torch": torch.__version__.split("+")[0],  # without the suffix of CPU and CUDA builds
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
