"""Hold an archive against what it says of itself, in a process that cannot import the repository.

Looked at first, run last: its code is only executed when every member is the one that was recorded.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import logging
import stat
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml

from engine import Engine
from mar import GOLDEN_ANSWERS, MANIFEST, BadArchive, read_manifest
from signature import BadKey, check_signature

SUMS = "MAR-INF/SHA256SUMS"
PROVENANCE = "provenance.json"
# Files that torch or pickle would be asked to load, by name; and how such files begin, whatever their name.
PICKLE_NAMES = (".pth", ".pt", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
ZIP_START = b"PK\x03\x04"


@dataclass(frozen=True)
class Opened:
    """The members of an archive and its manifest's `model`."""

    infos: list[zipfile.ZipInfo]
    members: dict[str, bytes]
    model: dict[str, Any]


def main() -> int:
    """Print what the archive is, or a sentence for each fault; return 1 where there is one."""
    arguments = _arguments()
    logging.getLogger("ts").setLevel(logging.ERROR)
    found = list(faults(arguments.archive, arguments.public_key))
    for fault in found:
        print(f"error: {arguments.archive}: {fault}", file=sys.stderr)
    if found:
        return 1
    describe(arguments.archive)
    return 0


def faults(archive: Path, public_key: Path | None = None) -> Iterator[str]:
    """Yield a sentence for each fault of an archive; none for a good one."""
    try:
        if public_key is not None:
            check_signature(archive, public_key)
        opened = _open(archive)
    except (BadArchive, BadKey) as error:
        yield str(error)
        return
    checks: list[Callable[[Opened], Iterator[str]]] = [_paths, _members, _digests, _classes, _pickles]
    found = [fault for check in checks for fault in check(opened)]
    yield from found or _golden(archive, opened)


def describe(archive: Path) -> None:
    """Print the history and the proof of an archive that has no fault."""
    with zipfile.ZipFile(archive) as mar:
        provenance = json.loads(mar.read(PROVENANCE))
        golden = json.loads(mar.read(GOLDEN_ANSWERS))["pictures"]
        count = len(mar.namelist())
        config = yaml.safe_load(mar.read(json.loads(mar.read(MANIFEST))["model"]["configFile"]))
    figures = provenance["figures"] or {}
    print(f"{archive} is sound: {provenance['name']} {provenance['version']}")
    print(f"  sha256    {hashlib.sha256(archive.read_bytes()).hexdigest()}")
    print(f"  source    commit {provenance['source_commit']}, built with torch {provenance['torch']}")
    numbers = [f"{key} {value}" for key, value in figures.items() if not isinstance(value, list)]
    print(f"  figures   {', '.join(numbers) or 'none'}")
    print(f"  takes     {', '.join(f'{key} {value}' for key, value in config['input'].items())}")
    print(f"  members   {count}, each as recorded")
    print(f"  golden    {len(golden)} pictures answered as recorded")


def _open(archive: Path) -> Opened:
    model = read_manifest(archive)["model"]
    with zipfile.ZipFile(archive) as mar:
        infos = mar.infolist()
        return Opened(infos, {info.filename: mar.read(info) for info in infos}, model)


def _paths(opened: Opened) -> Iterator[str]:
    for info in opened.infos:
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
            yield f"the member {info.filename!r} leads out of the folder it is unpacked in"
        if stat.S_ISLNK(info.external_attr >> 16):
            yield f"the member {info.filename!r} is a link; an archive holds files alone"


def _members(opened: Opened) -> Iterator[str]:
    for name, count in Counter(info.filename for info in opened.infos).items():
        if count > 1:
            yield f"the member {name} is there {count} times"
    for key in ("handler", "modelFile", "serializedFile", "configFile"):
        if (name := str(opened.model.get(key, ""))) and name not in opened.members:
            yield f"the manifest names {name} as its {key}, but there is no such member"
    for needed in (SUMS, PROVENANCE, GOLDEN_ANSWERS):
        if needed not in opened.members:
            yield f"{needed} is missing; build the archive with: make archive"


def _digests(opened: Opened) -> Iterator[str]:
    lines = opened.members.get(SUMS, b"").decode("utf-8", errors="replace").splitlines()
    recorded = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted(recorded.keys() - opened.members.keys()):
        yield f"the member {name} is missing"
    for name in sorted(opened.members.keys() - recorded.keys() - {SUMS} if recorded else ()):
        yield f"the member {name} was not there when the archive was built"
    for name in sorted(recorded.keys() & opened.members.keys()):
        digest = hashlib.sha256(opened.members[name]).hexdigest()
        if digest != recorded[name]:
            yield f"the member {name} was changed: its SHA-256 is {digest}, recorded is {recorded[name]}"


def _classes(opened: Opened) -> Iterator[str]:
    for key in ("handler", "modelFile"):
        name = str(opened.model.get(key))
        if name not in opened.members:
            continue
        try:
            body = ast.parse(opened.members[name]).body
        except (SyntaxError, ValueError) as error:
            yield f"{name} is no Python: {error}"
            continue
        classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
        if len(classes) != 1:
            yield f"{name} defines {len(classes)} classes ({', '.join(classes)}); TorchServe takes one"


def _pickles(opened: Opened) -> Iterator[str]:
    for name, data in opened.members.items():
        if not (name.endswith(PICKLE_NAMES) or data.startswith((*PICKLE_STARTS, ZIP_START))):
            continue
        if name == opened.model.get("serializedFile") and _is_torchscript(data):
            continue  # TorchScript is a language of its own: it computes, and reaches nothing else
        try:
            torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 what a hostile pickle makes the loader raise is not foreseeable
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            yield f"{name} is not loadable as weights alone, so it could run code: {reason}"


def _is_torchscript(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            return any("/code/" in name for name in packed.namelist())
    except zipfile.BadZipFile:
        return False


def _golden(archive: Path, opened: Opened) -> Iterator[str]:
    pictures = json.loads(opened.members[GOLDEN_ANSWERS]).get("pictures", {})
    if not pictures:
        yield "it has no golden answers; build it with pictures: make archive GOLDEN=folder"
    try:
        with Engine(archive):
            pass
    except Exception as error:  # noqa: BLE001 the archive's own code runs here
        yield f"it does not load: {type(error).__name__}: {error}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--public-key", type=Path, help="require a signature by this key")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
