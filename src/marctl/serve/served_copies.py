"""Archives as they are served: each server's own copies, checked, and nothing else loaded."""

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
from marctl.archive.signing import SUFFIX as SIGNATURE
from marctl.archive.signing import check_signature
from marctl.serve.torchserve.instance import Served

FOLDER = "served"
OWNER_ALONE = 0o700


@dataclass(frozen=True)
class Terms:
    """What an archive must be to be served: signed with each key that is given; and sealed, or not."""

    public_key: Path | None = None
    sealed: bool = True
    another_key: Path | None = None


def take(archives: Iterable[Path], folder: Path, terms: Terms) -> list[Served]:
    """Copy archives into a folder, in the place of what lies there; check the copies, say what they serve.

    Raises UserError, and nothing is left in the folder.
    """
    drop(folder)
    with contextlib.ExitStack() as where_it_fails:
        where_it_fails.callback(drop, folder)
        try:
            folder.mkdir(OWNER_ALONE, parents=True)
            served = [_taken(archive, folder, terms) for archive in archives]
        except OSError as error:
            raise BadArchive(f"cannot copy what is to be served into {folder}: {error.strerror}") from error
        where_it_fails.pop_all()
    return served


def drop(folder: Path) -> None:
    """Delete a folder of copies, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def describe(archive: Path) -> Served:
    """Say what a sealed archive serves.

    Raises BadArchive where it is no archive that can be held to answers, or not safe to unpack.
    """
    model = read_manifest(archive)["model"]
    check_members(archive)
    known_answer(archive)
    return Served(model["modelName"], model["modelVersion"], str(archive), sha256(archive))


def unproven(served: Iterable[Served]) -> str | None:
    """Say of which archives nothing is proven, and what; None where each proved itself."""
    names = [one.archive for one in served if not one.sealed]
    if not names:
        return None
    return (f"not sealed: {', '.join(names)}; nothing shows that its files are those of its build, "
            "and no golden answer was checked")  # fmt: skip


def sha256(archive: Path) -> str:
    """Return a file's SHA-256, in hexadecimal digits."""
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _taken(archive: Path, folder: Path, terms: Terms) -> Served:
    if (folder / archive.name).exists():
        raise BadArchive(f"two archives are named {archive.name}, but one folder must hold both; rename one")
    with naming(archive, folder):
        copy = copy_into(archive, folder)
        for key in filter(None, (terms.public_key, terms.another_key)):
            check_signature(copy, key)
        copy.with_name(copy.name + SIGNATURE).unlink(missing_ok=True)
        model = read_manifest(copy)["model"]
        digest, sealed = sha256(copy), _says_sealed(copy)
        if sealed:  # whatever the terms: what says so and is not is damaged
            describe(copy)
        elif terms.sealed:
            raise BadArchive(
                f"{copy} was not sealed by make archive; to serve it all the same: make serve SEALED=no"
            )
        else:
            _pack_anew(copy)
    name, version = model["modelName"], model["modelVersion"]
    return Served(name, version, str(archive), digest, str(copy.resolve()), sealed)


def _says_sealed(archive: Path) -> bool:
    with zipfile.ZipFile(archive) as mar:
        return SUMS in mar.namelist()


def _pack_anew(archive: Path) -> None:
    """Write the members of an archive that was not sealed anew: TorchServe finds then what was looked at.

    It reads a zip from its start, and Python by the list at its end: in a file that somebody else made, the
    two may find two things. Raises BadArchive where a member could lie outside of the folder that it is
    unpacked in, or there is no room for all of them.
    """
    new = archive.with_name(archive.name + ".new")
    with zipfile.ZipFile(archive) as mar:
        files = [info for info in mar.infolist() if not info.is_dir()]
        if (fault := next(_faults(files), None)) is not None:
            raise BadArchive(f"{archive}: {fault}")
        room, wanted = shutil.disk_usage(archive.parent).free, sum(info.file_size for info in files)
        if wanted > room:
            raise BadArchive(f"{archive} takes {wanted:,} bytes, {archive.parent} has room for {room:,}")
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
