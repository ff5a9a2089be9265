"""Whether the folder for temporary files will do, before a server is started that fails there later."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from marctl.errors import UserError

# What Linux takes for a Unix socket's path, with a zero at its end: sun_path in <sys/un.h>.
SOCKET_PATH = 107
# The longest that is made below TMPDIR: a worker's, in a folder of tempfile's, with a number of ten digits.
LONGEST_SOCKET = "/torchserve-12345678/.ts.sock.1234567890"
# For sockets, a process's number and what else is small.
MARGIN = 2**19
ANOTHER = "name another folder: RUN=folder"
SHORTER = "set TMPDIR to a shorter path"
ROOMIER = "free space there, or set TMPDIR, or RUN, to a folder with more"


# What a disk is at fault for, what a folder's name is, and neither is a bug.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NO_FOLDER = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


def check_scratch() -> None:
    """Raise UserError where a socket below TMPDIR would have a longer path than a socket can have."""
    folder = scratch_folder()
    length = len(os.fsencode(str(folder) + LONGEST_SOCKET))
    if length > SOCKET_PATH:
        raise UserError(
            f"TMPDIR, {folder}, is too long: a worker's socket would have a path of {length} bytes, "
            f"and may have {SOCKET_PATH}; {SHORTER}"
        )


def check_room(archives: Iterable[Path], folder: Path, times: int = 1) -> None:
    """Raise UserError where a folder has no space for archives to be unpacked, each so many times."""
    room = shutil.disk_usage(folder).free
    wanted = times * sum(unpacked(archive) for archive in archives) + MARGIN
    if wanted > room:
        raise UserError(f"{folder} has room for {room:,} bytes, and serving takes {wanted:,}; {ROOMIER}")


def unwritable(run: Path, error: OSError) -> str | None:
    """Say why a server's folder, or another, cannot be written into; None where an error is another one."""
    # Of two files it wrote the second one; for one that was open already the kernel has no name.
    name = error.filename2 or error.filename or run
    named, folder = (Path(os.fsdecode(one)).resolve() for one in (name, run))
    if error.errno in (*NO_ROOM, *NO_FOLDER) and named.is_relative_to(folder):
        where = "" if named == folder or not folder.is_dir() else f" ({named})"
        reason = "it is no folder" if folder.is_file() else f"{error.strerror}{where}"
        return f"RUN={run} cannot be used: {reason}; {ANOTHER}"
    return f"{named}: {error.strerror}; {ROOMIER}" if error.errno in NO_ROOM else None


def scratch_folder() -> Path:
    """Return where temporary files go. Raises UserError."""
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise UserError(f"there is no folder for temporary files ({error.strerror}); {ROOMIER}") from error


def unpacked(archive: Path) -> int:
    """Return the bytes that an archive takes when it is unpacked."""
    with zipfile.ZipFile(archive) as mar:
        return sum(info.file_size for info in mar.infolist())


def remedy(error: str) -> str | None:
    """Return what helps against what a worker said when it died; None where nobody can tell."""
    known = {
        os.strerror(errno.ENOSPC): ROOMIER,
        os.strerror(errno.EDQUOT): ROOMIER,
        # Java's words for a disk that takes no further file, where an archive's folder is to be made.
        "java.io.IOException: Cannot create directory": ROOMIER,
        "AF_UNIX path too long": SHORTER,
    }
    return next((advice for words, advice in known.items() if words in error), None)
