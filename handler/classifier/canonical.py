"""The canonical form of an archive: the same members always give the same bytes.

Members are sorted, times and modes are fixed, and nothing is compressed (zlib's output differs between its
versions). So the file and its SHA-256 can be computed from the unpacked members, and a worker knows which
archive it runs.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

REMEDY = "rebuild it: make archive"
MANIFEST, SUMS = "MAR-INF/MANIFEST.json", "MAR-INF/SHA256SUMS"
# The only name under which TorchServe reads labels.
LABEL_FILE = "index_to_name.json"
PROVENANCE = "provenance.json"
REGULAR_FILE = 0o100644 << 16
UNIX = 3
EARLIEST = 315532800  # 1980, the earliest time that zip has, in seconds since 1970


class Altered(RuntimeError):
    """An archive with a member that is not the one recorded when it was built; the text names it."""


def write(members: Mapping[str, bytes], created: int, file: IO[bytes]) -> None:
    """Write the members as a zip; `created`, in seconds since 1970, is the time of each."""
    moment = time.gmtime(max(created, EARLIEST))[:6]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, moment)
            info.external_attr = REGULAR_FILE
            info.create_system = UNIX
            archive.writestr(info, members[name])


def with_sums(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """Add the list of the members' SHA-256 digests, in the format of sha256sum."""
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(members.items())]
    return {**members, SUMS: "".join(lines).encode()}


def read_sums(text: str) -> dict[str, str]:
    """Return the SHA-256 of each listed member, by name."""
    return {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}


def check_unpacked(folder: Path) -> str | None:
    """Return the SHA-256 of the archive that was unpacked here; None if it was not sealed.

    Raises Altered if a member is not the one recorded when the archive was built.
    """
    if not (folder / SUMS).exists():
        return None
    sums = (folder / SUMS).read_bytes()
    recorded = read_sums(sums.decode("utf-8"))
    members = {name: _member(folder / name) for name in recorded}
    for name, data in members.items():
        if hashlib.sha256(data).hexdigest() != recorded[name]:
            raise Altered(f"{name} is not the file that the archive was built with; {REMEDY}")
    with tempfile.TemporaryFile() as file:
        write({**members, SUMS: sums}, json.loads(members[PROVENANCE])["created"], file)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _member(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Altered(f"{path.name} is missing from the archive ({error.strerror}); {REMEDY}") from error
