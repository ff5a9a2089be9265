"""What an archive may hold, told before anybody unpacks it: two readers of a zip may find two things."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import canonical
from mar import BadArchive

HIDING = "the file is not what its members make: it was packed again, or something is hidden in it"
REMEDY = "build it again: make archive"


def unsafe(infos: Iterable[zipfile.ZipInfo]) -> Iterator[str]:
    """Yield a sentence for each member that would lie elsewhere than its name says, or leads elsewhere."""
    for info in infos:
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
            yield f"the member {info.filename!r} leads out of the folder it is unpacked in"
        elif str(path) != info.filename:
            yield f"the member {info.filename!r} is another name for {str(path)!r}"
        if stat.S_ISLNK(info.external_attr >> 16):
            yield f"the member {info.filename!r} is a link; an archive holds files alone"


def hides_something(archive: Path, members: Mapping[str, bytes]) -> bool:
    """Tell whether the file holds anything but the members that Python finds in it.

    TorchServe reads a zip from its start, and Python by the list at its end.

    Raises BadArchive where the archive does not say when it was built.
    """
    try:
        created = int(json.loads(members[canonical.PROVENANCE])["created"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadArchive(f"{archive} does not say when it was built; {REMEDY}") from error
    file = io.BytesIO()
    canonical.write(members, created, file)
    return file.getvalue() != archive.read_bytes()


def check_members(archive: Path) -> None:
    """Raise BadArchive where a member could lie outside of the folder that the archive is unpacked in."""
    with zipfile.ZipFile(archive) as mar:
        infos = mar.infolist()
        if (fault := next(unsafe(infos), None)) is not None:
            raise BadArchive(f"{archive}: {fault}; {REMEDY}")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise BadArchive(f"{archive} was packed again, or never sealed; {REMEDY}")
        members = {info.filename: mar.read(info) for info in infos}
    if hides_something(archive, members):
        raise BadArchive(f"{archive}: {HIDING}; {REMEDY}")
