"""The .mar file: a zip with the archive's files and, in MAR-INF/MANIFEST.json, what each of them is."""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from classifier.canonical import MANIFEST
from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from classifier.golden import FOLDER as GOLDEN_FOLDER
from marctl.archive.bounded_zip import open_zip, read_record
from marctl.errors import UserError
from marctl.printable import printable

# Names and versions become parts of TorchServe's URLs and of this project's folders.
NAME = re.compile(r"\w[\w.-]{0,99}")
SUFFIX = ".sig"  # of the signature beside an archive
SIGNATURE_BYTES = 64  # of Ed25519


class BadArchive(UserError):
    """A .mar that is missing, damaged or not an archive; the message says which, and the remedy.

    The message may quote the archive, so characters that do not print are escaped here.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text, most=2000))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive. Any fault of the zip, now or while it is read, raises BadArchive."""
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(open_zip(path))
        except FileNotFoundError as error:
            raise BadArchive(f"there is no archive {path}; build it with: make archive") from error
        except OSError as error:
            raise BadArchive(f"cannot read {path}: {error.strerror or error}") from error
        except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
            raise _damaged(path, error) from error
        try:
            yield opened
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadArchive:
    return BadArchive(f"{path} is damaged ({error}); build it again: rm {path} && make archive")


def is_name(value: object) -> bool:
    """Return whether a value can be a model's name or version: printable, and fit for URLs and paths."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None and printable(value) == value


def read_manifest(path: Path) -> dict[str, Any]:
    """Check that every member of the archive can be read, and return its manifest. Raises BadArchive."""
    with reading(path) as mar:
        damaged = mar.testzip()
        try:
            manifest = json.loads(read_record(mar, MANIFEST))
        except KeyError as error:
            raise BadArchive(
                f"{path} has no {MANIFEST}: it is not a model archive; build one with: make archive"
            ) from error
        except (ValueError, RecursionError) as error:
            raise zipfile.BadZipFile(f"{MANIFEST}: {error}") from error
    if damaged:
        raise BadArchive(f"{path} is damaged in {damaged}; build it again: rm {path} && make archive")
    return _with_model(manifest, path)


def known_answers(path: Path) -> Iterator[tuple[str, bytes, str]]:
    """Yield name, bytes and label of each of the archive's golden images. Raises BadArchive."""
    with reading(path) as mar:
        try:
            for name, golden in json.loads(read_record(mar, GOLDEN_ANSWERS))["pictures"].items():
                yield name, mar.read(f"{GOLDEN_FOLDER}/{name}"), golden["label"]
        except (KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
            raise BadArchive(f"{path} has no golden answers; build it with: make archive") from error


def known_answer(path: Path) -> tuple[str, bytes, str]:
    """Return name, bytes and label of the archive's first golden image. Raises BadArchive."""
    for known in known_answers(path):
        return known
    raise BadArchive(f"{path} has no golden answers; build it with: make archive")


def _with_model(manifest: Any, path: Path) -> dict[str, Any]:
    match manifest:
        case {"model": {"modelName": str(name), "modelVersion": str(version), "handler": str()}}:
            for value in (name, version):
                if not is_name(value):
                    raise BadArchive(f"the manifest of {path} says {value!r}; use letters, digits, - _ .")
            return dict(manifest)
        case _:
            raise BadArchive(f"the manifest of {path} names no model, version and handler; run: make archive")


def is_signature(path: Path) -> bool:
    """Return whether a file can be a signature of this kind: not a link, and of the right length."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size == SIGNATURE_BYTES
