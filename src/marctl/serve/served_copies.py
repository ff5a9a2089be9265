"""The copies of archives that a server loads: its own, checked, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from classifier.canonical import SUMS
from marctl.archive.mar import BadArchive, known_answer, read_manifest
from marctl.archive.members import check_members, unsafe
from marctl.archive.private_copy import copy_into, naming
from marctl.archive.runtime import check_installed
from marctl.archive.signing import SUFFIX as SIGNATURE
from marctl.archive.signing import check_signature
from marctl.extras import need_torch
from marctl.serve.torchserve.instance import Served

FOLDER = "served"
OWNER_ALONE = 0o700


@dataclass(frozen=True)
class Terms:
    """What an archive must fulfil to be served: signed with each key given, and sealed unless that is off."""

    public_key: Path | None = None
    sealed: bool = True
    another_key: Path | None = None


def take(archives: Iterable[Path], folder: Path, terms: Terms) -> list[Served]:
    """Replace a folder's content with copies of archives, check them, and return what they serve.

    Raises UserError, and then leaves nothing in the folder.
    """
    drop(folder)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(drop, folder)
        try:
            folder.mkdir(OWNER_ALONE, parents=True)
            served = [_taken(archive, folder, terms) for archive in archives]
        except OSError as error:
            raise BadArchive(f"cannot copy the archives into {folder}: {error.strerror}") from error
        on_failure.pop_all()
    return served


def drop(folder: Path) -> None:
    """Delete a folder of copies, if it exists."""
    shutil.rmtree(folder, ignore_errors=True)


def describe(archive: Path) -> Served:
    """Return what a sealed archive serves.

    Raises BadArchive if it has no golden answers to check against, or is not safe to unpack.
    """
    model = read_manifest(archive)["model"]
    check_members(archive)
    known_answer(archive)
    return Served(model["modelName"], model["modelVersion"], str(archive), sha256(archive))


def unproven(served: Iterable[Served]) -> str | None:
    """Return a warning that names the unsealed archives; None if all are sealed."""
    names = [one.archive for one in served if not one.sealed]
    if not names:
        return None
    return (f"not sealed: {', '.join(names)}; the files could not be verified, "
            "and no golden answer was checked")  # fmt: skip


def sha256(archive: Path) -> str:
    """Return a file's SHA-256, in hexadecimal digits."""
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _taken(archive: Path, folder: Path, terms: Terms) -> Served:
    if (folder / archive.name).exists():
        raise BadArchive(f"two archives are named {archive.name}, but both go into one folder; rename one")
    with naming(archive, folder):
        copy = copy_into(archive, folder)
        for key in filter(None, (terms.public_key, terms.another_key)):
            check_signature(copy, key)
        copy.with_name(copy.name + SIGNATURE).unlink(missing_ok=True)
        model = read_manifest(copy)["model"]
        names = _members(copy)
        digest, sealed = sha256(copy), SUMS in names
        if sealed:  # whatever the terms: an archive that claims to be sealed and fails is damaged
            describe(copy)
            check_installed(names, model)
        elif terms.sealed:
            raise BadArchive(
                f"{copy} was not sealed by make archive; to serve it anyway: make serve SEALED=no"
            )
        else:
            need_torch("torch")  # what another project's handler needs is not known
            _repack(copy)
    name, version = model["modelName"], model["modelVersion"]
    return Served(name, version, str(archive), digest, str(copy.resolve()), sealed)


def _members(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as mar:
        return set(mar.namelist())


def _repack(archive: Path) -> None:
    """Rewrite an unsealed archive, so that TorchServe reads the members that were checked.

    TorchServe reads a zip from its start, Python by the directory at its end: in a file from elsewhere the
    two may differ. Raises BadArchive if a member could be unpacked outside its folder, or if there is no room
    for all of them.
    """
    new = archive.with_name(archive.name + ".new")
    with zipfile.ZipFile(archive) as mar:
        files = [info for info in mar.infolist() if not info.is_dir()]
        if (fault := next(_faults(files), None)) is not None:
            raise BadArchive(f"{archive}: {fault}")
        room, wanted = shutil.disk_usage(archive.parent).free, sum(info.file_size for info in files)
        if wanted > room:
            raise BadArchive(f"{archive} takes {wanted:,} bytes, but {archive.parent} has room for {room:,}")
        with zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as stored:
            for info in files:
                large = info.file_size >= zipfile.ZIP64_LIMIT
                with mar.open(info) as source, stored.open(info.filename, "w", force_zip64=large) as target:
                    shutil.copyfileobj(source, target)
    new.replace(archive)


def _faults(files: list[zipfile.ZipInfo]) -> Iterator[str]:
    yield from unsafe(files)
    for name, count in Counter(info.filename for info in files).items():
        if count > 1:
            yield f"the member {name} is there {count} times"
