"""Check the members of an archive against its own records, without running any of them.

Small records are read here. Everything else that needs a parser is parsed in a sandboxed process.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier import canonical
from classifier.canonical import SUMS
from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from classifier.golden import FOLDER as GOLDEN_FOLDER
from classifier.runtime import MEMBERS
from marctl.archive.bounded_zip import MOST_RECORD, read_record
from marctl.archive.claims import contradictions, malformed
from marctl.archive.mar import read_manifest, reading
from marctl.archive.members import HIDING, check_stored, hides_something, sha256, unsafe
from marctl.archive.private_copy import private_copy
from marctl.archive.runtime import check_installed
from marctl.sandbox import sandbox
from marctl.verify import proof

LOOK = Path(__file__).with_name("look.py")
RECORDS = (SUMS, canonical.PROVENANCE, GOLDEN_ANSWERS)
DIGITS = frozenset("0123456789abcdef")
SHA256 = 64  # digits


@dataclass
class Examined:
    """A private copy of an archive and what was found in it; incomplete if there are faults."""

    copy: Path
    mar: zipfile.ZipFile
    model: dict[str, Any]
    faults: list[str] = field(default_factory=list)
    records: dict[str, bytes] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    # The members besides Python that run, and what each is.
    programs: dict[str, str] = field(default_factory=dict)
    ran: bool = False

    @property
    def names(self) -> set[str]:
        """The names of the members."""
        return set(self.mar.namelist())


@contextlib.contextmanager
def examined(archive: Path, public_key: Path | None = None, *, run: bool = False) -> Iterator[Examined]:
    """Examine a private copy of an archive; with `run`, also run it if there are no faults.

    Raises BadArchive if it cannot be read as an archive, or was not signed with the key; UserError.
    """
    with private_copy(archive, public_key) as copy:
        model = read_manifest(copy)["model"]
        with reading(copy) as mar:
            check_stored(copy, mar)
            found = Examined(copy, mar, model)
            found.faults = _faults(found, run=run)
            yield found


def _faults(found: Examined, *, run: bool) -> list[str]:
    faults = [*unsafe(found.mar.infolist()), *_members(found), *_records(found), *_digests(found)]
    # Readers of a zip differ in what they find.
    if not faults and hides_something(found.copy, found.mar):
        faults = [HIDING]
    faults = faults or list(contradictions(found.records, found.model, found.names))
    if faults:
        return faults
    with tempfile.TemporaryDirectory(prefix="archive-") as name:
        folder = Path(name)
        found.mar.extractall(folder)
        faults = list(_contents(found, folder))
        if run and not faults:
            check_installed(found.names, found.model)
            found.ran = True
            _take_records_from(folder)
            faults = list(proof.disproof(found.mar, folder, found.model, found.config["labels"]))
    return faults


def _members(found: Examined) -> Iterator[str]:
    for name, count in Counter(found.mar.namelist()).items():
        if count > 1:
            yield f"the member {name} occurs {count} times"
    for key in ("handler", "modelFile", "serializedFile", "configFile"):
        name = found.model.get(key, "")
        if not isinstance(name, str):
            yield f"the manifest names no file as its {key}"
        elif name and name not in found.names:
            yield f"the manifest names {name} as its {key}, but there is no such member"
    if not found.model.get("configFile"):
        yield "the manifest names no configFile; build the archive with: make archive"
    for needed in RECORDS:
        if needed not in found.names:
            yield f"{needed} is missing; build the archive with: make archive"
        elif found.mar.getinfo(needed).file_size > MOST_RECORD:
            yield f"{needed} is larger than the limit of {MOST_RECORD:,} bytes"


def _records(found: Examined) -> Iterator[str]:
    found.records = {
        name: read_record(found.mar, name)
        for name in RECORDS
        if name in found.names and found.mar.getinfo(name).file_size <= MOST_RECORD
    }
    return malformed(found.records)


def _digests(found: Examined) -> Iterator[str]:
    if SUMS not in found.records:
        return  # reported already
    lines = found.records[SUMS].decode("utf-8", errors="replace").splitlines()
    parts = [line.partition("  ") for line in lines]
    if not all(len(digest) == SHA256 and set(digest) <= DIGITS and name for digest, _, name in parts):
        yield f"{SUMS} is not a list of digests; build the archive with: make archive"
        return
    recorded = {name: digest for digest, _, name in parts}
    for name in sorted(recorded.keys() - found.names):
        yield f"the member {name} is missing"
    for name in sorted(found.names - recorded.keys() - {SUMS}):
        yield f"the member {name} was not there when the archive was built"
    for name in sorted(recorded.keys() & found.names):
        if (digest := sha256(found.mar, name)) != recorded[name]:
            yield f"the member {name} was changed: its SHA-256 is {digest}, not {recorded[name]}"


def _take_records_from(folder: Path) -> None:
    """Delete the golden answers and images, so that the archive's code cannot just repeat them."""
    for name in (SUMS, GOLDEN_ANSWERS):
        (folder / name).unlink()
    shutil.rmtree(folder / GOLDEN_FOLDER)


def _contents(found: Examined, folder: Path) -> Iterator[str]:
    """Parse the members' contents in the sandbox, and keep config and programs."""
    found.programs = dict(_programs(found))
    config = found.model["configFile"]
    question = {
        "python": [name for key in ("handler", "modelFile") if (name := found.model.get(key))],
        "config": config,
        "programs": found.programs,
        "members": sorted(found.names),
    }
    memory = sandbox.to_parse(found.copy.stat().st_size)
    try:
        answer = sandbox.run(LOOK, folder, json.dumps(question).encode(), memory)
        told = json.loads(answer)
    except (sandbox.NoAnswer, ValueError, RecursionError) as error:
        yield f"its members could not be examined: {error}"
        return
    yield from told["faults"]
    for name, classes in told["classes"].items():
        is_named = name == found.model.get("modelFile") and told["class"] in classes
        if len(classes) != 1 and not is_named:
            yield f"{name} defines {len(classes)} classes ({', '.join(classes)}); TorchServe expects one"
    found.config = told["config"]


def _programs(found: Examined) -> Iterator[tuple[str, str]]:
    """Yield the members that the archive declares as programs that it runs, and what each is."""
    # A model without a class is loaded according to its file's suffix.
    alone = "" if found.model.get("modelFile") else str(found.model.get("serializedFile", ""))
    if MEMBERS["torchscript"] in found.names:
        yield MEMBERS["torchscript"], "TorchScript"
    if MEMBERS["aoti"] in found.names:
        yield MEMBERS["aoti"], "machine code"
    if alone.endswith(".pt"):
        yield alone, "TorchScript"
    if alone.endswith(".so"):
        yield alone, "machine code"
