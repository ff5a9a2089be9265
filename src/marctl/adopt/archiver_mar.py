"""Read an untrusted .mar of torch-model-archiver; none of its members is run."""

from __future__ import annotations

import contextlib
import json
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from classifier.canonical import MANIFEST
from marctl.archive.bounded_zip import open_zip
from marctl.archive.mar import BadArchive
from marctl.archive.members import unsafe

ARCHIVER = "torch-model-archiver"
GZIP = b"\x1f\x8b"
# Bytes of a member that is read as a whole: sources, settings and labels are a few thousand bytes.
MOST_TEXT = 2**22
MOST_MEMBERS = 10_000
DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, EOFError, RuntimeError, KeyError)


class ArchiverMar:
    """An opened archive. Close it, or use it in a `with`."""

    def __init__(self, path: Path) -> None:
        """Read the list of members and the manifest. Raises BadArchive."""
        self.path = path
        self._stack = contextlib.ExitStack()
        try:
            self._zip = _opened(path, self._stack)
            self._infos = {info.filename: info for info in self._checked_members()}
            self.model = self._manifest()
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> list[str]:
        """The names of all members that are files."""
        return [name for name in self._infos if not name.endswith("/")]

    def named(self, key: str) -> str | None:
        """Return the member that the manifest names under a key, or None. Raises BadArchive."""
        name = self.model.get(key)
        if not name:
            return None
        if not isinstance(name, str) or name not in self._infos:
            raise BadArchive(
                f"{self.path}: the manifest names {_short(name)} as its {key}, but there is no "
                f"such member; build it again with {ARCHIVER}"
            )
        return name

    def text(self, name: str) -> bytes | None:
        """Return the content of a small member, or None if it is missing. Raises BadArchive."""
        info = self._infos.get(name)
        if info is None:
            return None
        if info.file_size > MOST_TEXT:
            raise BadArchive(
                f"{self.path}: {name!r} has {info.file_size:,} bytes, more than the limit of "
                f"{MOST_TEXT:,} for sources, labels and settings"
            )
        with self._naming(name):
            return self._zip.read(info)

    def extract(self, name: str, target: Path) -> None:
        """Write a member of any size to a new file. Raises BadArchive, or OSError for the file."""
        info = self._infos[name]
        with self._naming(name), self._zip.open(info) as member, target.open("xb") as file:
            shutil.copyfileobj(member, file)

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked_members(self) -> Iterator[zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > MOST_MEMBERS:
            raise BadArchive(f"{self.path} has {len(infos):,} members; the limit is {MOST_MEMBERS:,}")
        # Folders, whose names end with a slash, are ignored.
        files = [info for info in infos if not info.is_dir()]
        if (fault := next(unsafe(files), None)) is not None:
            raise BadArchive(f"{self.path}: {fault}")
        seen: set[str] = set()
        for info in files:
            if info.filename in seen:
                raise BadArchive(f"{self.path}: the member {info.filename!r} occurs more than once")
            seen.add(info.filename)
            yield info

    def _manifest(self) -> dict[str, Any]:
        text = self.text(MANIFEST)
        if text is None:
            raise BadArchive(f"{self.path} has no {MANIFEST}: it is not an archive of {ARCHIVER}")
        try:
            manifest = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadArchive(f"{self.path}: {MANIFEST} is not JSON ({error})") from error
        match manifest:
            case {"model": {"modelName": str(), "handler": str()} as model}:
                self._check_kinds(model)
                return dict(model)
            case _:
                raise BadArchive(f"{self.path}: {MANIFEST} names no model or no handler")

    def _check_kinds(self, model: dict[str, Any]) -> None:
        for key in ("modelFile", "serializedFile", "configFile", "modelVersion"):
            if not isinstance(model.get(key), str | float | int | None):
                raise BadArchive(
                    f"{self.path}: the {key} of {MANIFEST} is not a string; build it again with {ARCHIVER}"
                )

    def _naming(self, name: str) -> _Naming:
        return _Naming(self.path, name)


class _Naming:
    """Turns errors of a damaged member into BadArchive."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, DAMAGES):
            raise BadArchive(f"{self._path} is damaged in {self._name!r} ({error})") from error


def _opened(path: Path, stack: contextlib.ExitStack) -> zipfile.ZipFile:
    """Open a .mar's zip. Raises BadArchive if it is something else."""
    if path.is_dir():
        raise BadArchive(
            f"{path} is a folder; name a .mar file. To make one from an unpacked archive, such as one of "
            f"{ARCHIVER} --archive-format no-archive: cd {path} && zip -r ../model.mar ."
        )
    if path.exists() and not path.is_file():  # a pipe or a device may have no end
        raise BadArchive(f"{path} is not a file; name a .mar")
    try:
        with path.open("rb") as file:
            start = file.read(len(GZIP))
        if start == GZIP:
            raise BadArchive(
                f"{path} is a .tar.gz; name a .mar file. To make one: unpack it into a new folder, and "
                "run there: zip -r ../model.mar ."
            )
        return stack.enter_context(open_zip(path))
    except FileNotFoundError as error:
        raise BadArchive(f"there is no archive {path}") from error
    except OSError as error:
        raise BadArchive(f"cannot read {path}: {error.strerror or error}") from error
    except DAMAGES as error:
        what = "is damaged" if zipfile.is_zipfile(path) else "is not a zip, so not a .mar"
        raise BadArchive(f"{path} {what} ({error})") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."  # noqa: PLR2004 a line's worth
