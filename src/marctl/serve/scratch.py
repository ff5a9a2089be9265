"""Check the folder for temporary files before a server starts, instead of failing there later."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from marctl.errors import UserError

# The longest path of a Unix socket on Linux, without the final zero: sun_path in <sys/un.h>.
SOCKET_PATH = 107
# The longest socket path below TMPDIR: a worker's, in a folder made by tempfile, with a ten-digit number.
LONGEST_SOCKET = "/torchserve-12345678/.ts.sock.1234567890"
# For sockets, the PID file and other small files.
MARGIN = 2**19
ANOTHER = "name another folder: RUN=folder"
SHORTER = "set TMPDIR to a shorter path"
ROOMIER = "free space there, or set TMPDIR, or RUN, to a folder with more"


# Errors caused by a disk and by a folder's name; neither is a bug.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NO_FOLDER = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


def check_scratch() -> None:
    """Raise UserError if the path of a socket below TMPDIR would be too long."""
    folder = scratch_folder()
    length = len(os.fsencode(str(folder) + LONGEST_SOCKET))
    if length > SOCKET_PATH:
        raise UserError(
            f"TMPDIR, {folder}, is too long: a worker's socket would have a path of {length} bytes, "
            f"and the limit is {SOCKET_PATH}; {SHORTER}"
        )


def check_room(archives: Iterable[Path], folder: Path, times: int = 1) -> None:
    """Raise UserError if a folder lacks the space to unpack all archives `times` times."""
    room = shutil.disk_usage(folder).free
    wanted = times * sum(unpacked(archive) for archive in archives) + MARGIN
    if wanted > room:
        raise UserError(f"{folder} has room for {room:,} bytes, but serving takes {wanted:,}; {ROOMIER}")


def unwritable(run: Path, error: OSError) -> str | None:
    """Explain why a server's folder, or another, cannot be written to; None for other errors."""
    # Of two files the second was being written; an error in a file already open has no name.
    name = error.filename2 or error.filename or run
    named, folder = (Path(os.fsdecode(one)).resolve() for one in (name, run))
    if error.errno in (*NO_ROOM, *NO_FOLDER) and named.is_relative_to(folder):
        where = "" if named == folder or not folder.is_dir() else f" ({named})"
        reason = "it is not a folder" if folder.is_file() else f"{error.strerror}{where}"
        return f"RUN={run} cannot be used: {reason}; {ANOTHER}"
    return f"{named}: {error.strerror}; {ROOMIER}" if error.errno in NO_ROOM else None


def scratch_folder() -> Path:
    """Return the folder for temporary files. Raises UserError."""
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise UserError(f"there is no folder for temporary files ({error.strerror}); {ROOMIER}") from error


def unpacked(archive: Path) -> int:
    """Return the size of an unpacked archive, in bytes."""
    with zipfile.ZipFile(archive) as mar:
        return sum(info.file_size for info in mar.infolist())


def remedy(error: str) -> str | None:
    """Return the remedy for a dead worker's error message; None if it is unknown."""
    known = {
        os.strerror(errno.ENOSPC): ROOMIER,
        os.strerror(errno.EDQUOT): ROOMIER,
        # Java's message on a full disk, when it creates an archive's folder.
        "java.io.IOException: Cannot create directory": ROOMIER,
        "AF_UNIX path too long": SHORTER,
    }
    return next((advice for words, advice in known.items() if words in error), None)
