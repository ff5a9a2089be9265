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
import re
import secrets
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

import canonical
from canonical import SUMS
from engine import Engine
from mar import GOLDEN_ANSWERS, GOLDEN_FOLDER, BadArchive, read_manifest
from members import HIDING, hides_something, unsafe
from signature import BadKey, check_signature
from source import LATEST

TOLD = ("name", "version", "source_commit", "runtime", "torch")  # by provenance.json
DIGEST_LINE = re.compile(r"[0-9a-f]{64}  .+")
# Files that torch or pickle would be asked to load, by name; and how such files begin, whatever their name.
PICKLE_NAMES = (".pth", ".pt", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# The members that hold an exported model; handler/runtimes.py loads them.
TORCHSCRIPT, COMPILED = "runtime.pt", "runtime.pt2"
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
    if arguments.prove is not None:
        return prove(arguments.archive, arguments.prove)
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
    checks: list[Callable[[Opened], Iterator[str]]] = [
        _paths, _members, _records, _digests, _classes, _pickles,
    ]  # fmt: skip
    found = [fault for check in checks for fault in check(opened)]
    # Readers differ in what they find in a zip.
    if not found and hides_something(archive, opened.members):
        found = [HIDING]
    yield from found or _proof(archive)


def describe(archive: Path) -> None:
    """Print the history and the proof of an archive that has no fault."""
    opened = _open(archive)
    provenance = json.loads(opened.members[canonical.PROVENANCE])
    golden = json.loads(opened.members[GOLDEN_ANSWERS])["pictures"]
    config = yaml.safe_load(opened.members[opened.model["configFile"]])
    numbers = [f"{k} {v}" for k, v in (provenance["figures"] or {}).items() if not isinstance(v, list)]
    print(f"{archive} is sound: {provenance['name']} {provenance['version']}")
    print(f"  sha256    {hashlib.sha256(archive.read_bytes()).hexdigest()}")
    print(f"  source    commit {provenance['source_commit']}, built with torch {provenance['torch']}")
    print(f"  runtime   {provenance['runtime']}")
    print(f"  figures   {', '.join(numbers) or 'none'}")
    print(f"  takes     {', '.join(f'{key} {value}' for key, value in config['input'].items())}")
    print(f"  members   {len(opened.members)}, each as recorded")
    print(f"  golden    {len(golden)} pictures answered as recorded")


def _open(archive: Path) -> Opened:
    model = read_manifest(archive)["model"]
    with zipfile.ZipFile(archive) as mar:
        infos = mar.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise BadArchive(f"{archive} was packed again, or never sealed; build it with: make archive")
        return Opened(infos, {info.filename: mar.read(info) for info in infos}, model)


def _records(opened: Opened) -> Iterator[str]:
    """Check the form of what the archive says of itself, before anything relies on it."""
    forms: dict[str, Callable[[Any], bool]] = {
        canonical.PROVENANCE: lambda value: (
            isinstance(value["created"], int)
            and 0 <= value["created"] <= LATEST
            and isinstance(value["figures"], dict | None)
            and all(isinstance(value[key], str) for key in TOLD)
        ),
        GOLDEN_ANSWERS: lambda value: (
            len(value["pictures"]) > 0
            and all(f"{GOLDEN_FOLDER}/{name}" in opened.members for name in value["pictures"])
            and all(isinstance(one["label"], str) and one["outputs"] for one in value["pictures"].values())
        ),
    }
    for name, is_formed in forms.items():
        if name not in opened.members:
            continue
        try:
            formed = is_formed(json.loads(opened.members[name]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            formed = False
        if not formed:
            yield f"{name} does not say what it has to; build the archive with: make archive"


def _paths(opened: Opened) -> Iterator[str]:
    return unsafe(opened.infos)


def _members(opened: Opened) -> Iterator[str]:
    for name, count in Counter(info.filename for info in opened.infos).items():
        if count > 1:
            yield f"the member {name} is there {count} times"
    for key in ("handler", "modelFile", "serializedFile", "configFile"):
        if (name := str(opened.model.get(key, ""))) and name not in opened.members:
            yield f"the manifest names {name} as its {key}, but there is no such member"
    for needed in (SUMS, canonical.PROVENANCE, GOLDEN_ANSWERS):
        if needed not in opened.members:
            yield f"{needed} is missing; build the archive with: make archive"


def _digests(opened: Opened) -> Iterator[str]:
    if SUMS not in opened.members:
        return  # said already
    lines = opened.members[SUMS].decode("utf-8", errors="replace").splitlines()
    if not all(DIGEST_LINE.fullmatch(line) for line in lines):
        yield f"{SUMS} is no list of digests; build the archive with: make archive"
        return
    recorded = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted(recorded.keys() - opened.members.keys()):
        yield f"the member {name} is missing"
    for name in sorted(opened.members.keys() - recorded.keys() - {SUMS}):
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
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            yield f"{name} is no Python: {error}"
            continue
        classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
        if len(classes) != 1:
            yield f"{name} defines {len(classes)} classes ({', '.join(classes)}); TorchServe takes one"


def _pickles(opened: Opened) -> Iterator[str]:
    for name, data in opened.members.items():
        if not (name.lower().endswith(PICKLE_NAMES) or data.startswith((*PICKLE_STARTS, ZIP_START))):
            continue
        if name in (opened.model.get("serializedFile"), TORCHSCRIPT) and _is_torchscript(data):
            continue  # TorchScript is a language of its own: it computes, and reaches nothing else
        if name == COMPILED:
            continue  # machine code, known by its digest as the archive's Python is; it holds no pickle
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


def _proof(archive: Path) -> Iterator[str]:
    """Load the archive, which checks its golden answers, in a process of its own.

    Its code runs there, and may end the process: only the word given along counts as success.
    """
    word = secrets.token_hex()
    command = [sys.executable, __file__, str(archive), "--prove", word]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if not lines or lines[-1] != word:
        yield lines[-1] if lines else f"it ended the process that loaded it: {done.stderr.strip()[-500:]}"


def prove(archive: Path, word: str) -> int:
    """Print the word where the archive loads, else why it does not."""
    try:
        with Engine(archive) as engine:
            engine.check_eager()
            print(word)
    except BadArchive as error:
        print(str(error).replace("\n", " "))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--prove", help=argparse.SUPPRESS)  # how it calls itself
    parser.add_argument("--public-key", type=Path, help="require a signature by this key")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
