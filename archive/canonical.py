"""One form for an archive's bytes: the same members always make the same file.

Members sorted, times and modes fixed, nothing compressed (zlib's output differs between its versions).
So the file, and its SHA-256, can be made again from the unpacked members: a worker knows which archive
it runs.
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

SUMS = "MAR-INF/SHA256SUMS"
PROVENANCE = "provenance.json"
REGULAR_FILE = 0o100644 << 16
UNIX = 3
EARLIEST = 315532800  # zip knows no time before 1980, in seconds since 1970


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
    """Add the list of the members' SHA-256, as sha256sum writes and checks it."""
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(members.items())]
    return {**members, SUMS: "".join(lines).encode()}


def read_sums(text: str) -> dict[str, str]:
    """Return name and SHA-256 of each member listed."""
    return {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}


def digest_of_unpacked(folder: Path) -> str | None:
    """Return the SHA-256 of the archive that was unpacked here; None where it was not sealed."""
    if not (folder / SUMS).exists():
        return None
    created = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["created"]
    names = [*read_sums((folder / SUMS).read_text(encoding="utf-8")), SUMS]
    with tempfile.TemporaryFile() as file:
        write({name: (folder / name).read_bytes() for name in names}, created, file)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
