"""A copy of an archive that nobody else can replace, so that what is checked is what is loaded."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from marctl.archive.mar import SIGNATURE_BYTES, SUFFIX, BadArchive
from marctl.errors import UserError
from marctl.printable import printable

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def private_copy(archive: Path, public_key: Path | None = None) -> Iterator[Path]:
    """Yield a copy of an archive, with the same file name, in a folder that is deleted afterwards.

    With a public key, the copy's signature is checked first. Errors raised while the copy is in use name the
    original file. Raises UserError.
    """
    with tempfile.TemporaryDirectory(prefix="archive-") as folder, naming(archive, Path(folder)):
        copy = copy_into(archive, Path(folder))
        if public_key is not None:
            # Imported only here: without a key, cryptography is not needed.
            from marctl.archive.signing import check_signature

            check_signature(copy, public_key)
        yield copy


def copy_into(archive: Path, folder: Path) -> Path:
    """Copy an archive, and the signature beside it, into a folder; return the copy. Raises BadArchive."""
    copy = folder / archive.name
    try:
        if archive.exists() and not archive.is_file():  # a pipe or a device may have no end
            raise BadArchive(f"{archive} is not a file; name a .mar")
        signature = archive.with_name(archive.name + SUFFIX)
        shutil.copyfile(archive, copy)
        # Anything else of that name, such as a pipe, may have no end.
        if signature.is_file() and signature.stat().st_size == SIGNATURE_BYTES:
            shutil.copyfile(signature, copy.with_name(signature.name))
    except FileNotFoundError as error:
        raise BadArchive(f"there is no archive {archive}; build it with: make archive") from error
    except OSError as error:
        advice = "; free space there" if error.errno in FULL else ""
        raise BadArchive(f"cannot copy {archive} into {folder}: {error.strerror or error}{advice}") from error
    return copy


@contextlib.contextmanager
def naming(archive: Path, folder: Path) -> Iterator[None]:
    """Make errors about the copy in `folder` name the original archive."""
    copy = printable(str(folder / archive.name))
    try:
        yield
    except UserError as error:
        if copy in str(error):
            error.args = (str(error).replace(copy, printable(str(archive))),)
        raise
