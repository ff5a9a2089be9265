r"""The answers of a batch as a file: CSV, JSON lines or Parquet, one row per image, written as they come.

Two things are escaped, in a way that can be undone:

- In an image's name, in all three formats, a backslash becomes `\\`, and a byte that is not UTF-8 `\xff`.
- In CSV, a cell that a spreadsheet program would take for a formula is prefixed with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TextIO

from marctl.errors import UserError
from marctl.printable import printable


class BadTable(UserError):
    """An output file that cannot be written or continued; the message is safe to print on a terminal."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text, most=2000))


@dataclass(frozen=True)
class Row:
    """The result for one image: a label, or an error."""

    image: str
    label: str
    error: str
    archive: str  # the first digits of the archive's SHA-256; last, so that a torn row is noticed


COLUMNS = tuple(field.name for field in fields(Row))
HEADER = ",".join(COLUMNS) + "\n"
CSV, JSONL, PARQUET = ".csv", ".jsonl", ".parquet"
COLLECTED = ".part.csv"  # ending of the file that collects the rows for Parquet
# A file that is not UTF-8 is not ours, and must be read to find that out. A row ends with a line feed only.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
STRING, TORN_STRING = re.compile(r'"(?:[^"\\]|\\.)*"'), re.compile(r'(?:"(?:[^"\\]|\\.)*\\?)?')
# Lone surrogates, which a server's JSON may contain and a file cannot.
HALF = re.compile("[\ud800-\udfff]")
ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")
# The start of a formula, from OWASP's page on CSV injection. Apostrophes before it also match, so that
# escaping can be undone: a text that already looks escaped gets one more.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
GROUP = 2**16  # rows of a Parquet file that are in memory at once
# A label of another project's model may be long.
csv.field_size_limit(sys.maxsize)


class _NotOurs(BadTable):
    """A file with something other than answers."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not a file of answers; name another OUT")


class Table:
    """An output file, continued where an earlier run stopped."""

    def __init__(self, out: Path, archive: str) -> None:
        """Open `out`, with the rows of an earlier run with the same archive. Raises BadTable."""
        if out.suffix not in (CSV, JSONL, PARQUET):
            raise BadTable(f"OUT={out} must end with {CSV}, {JSONL} or {PARQUET}")
        if out.is_symlink():
            raise BadTable(f"OUT={out} is a link, and links are not followed; name a file")
        if os.path.lexists(out) and not out.is_file():
            raise BadTable(f"OUT={out} is not a regular file; name a file, existing or new")
        self.out, self.archive = out, archive
        self.done: set[str] = set()
        with self._writing():
            self._rows = self._collection(archive) if out.suffix == PARQUET else out
            if self._rows.exists():
                self._keep_whole_rows(archive)
            self._file = self._rows.open("a", **TEXT)  # type: ignore[call-overload]
            if self._rows.suffix == CSV and not self._file.tell():
                self._file.write(HEADER)
                self._file.flush()

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, and flush them to the operating system. Raises BadTable."""
        with self._writing():
            self._file.write("".join(_line(row, self._rows.suffix) for row in rows))
            self._file.flush()

    def finish(self) -> None:
        """Turn the collected rows into Parquet, if requested. Raises BadTable."""
        with self._writing():
            self._file.close()
            if self.out.suffix == PARQUET:
                with _scratch_beside(self.out) as folder:
                    part = Path(folder) / self.out.name
                    _to_parquet(_rows_of(self._rows, self.archive), part)
                    self._check_absent()
                    part.replace(self.out)
                self._rows.unlink()

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writing():
            self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise BadTable(
                f"OUT={self.out} cannot be written: {why}; correct that and run the same command again: "
                "it continues where it stopped"
            ) from error

    def _collection(self, archive: str) -> Path:
        """Return the CSV file that collects the rows for a Parquet file, which cannot be appended to.

        A file of an earlier run is recognised by its content. One with anything else is not ours.
        """
        self._check_absent()
        for file in sorted(self.out.parent.iterdir()):
            inner = file.name.removeprefix(f"{self.out.name}.")
            if inner == file.name or not inner.endswith(COLLECTED) or file.is_symlink() or not file.is_file():
                continue
            try:
                for _ in _rows_of(file, archive):
                    pass
            except _NotOurs:
                continue
            if file.stat().st_size:
                return file
        handle, name = tempfile.mkstemp(prefix=f"{self.out.name}.", suffix=COLLECTED, dir=self.out.parent)
        with open(handle, "w", **TEXT) as new:  # type: ignore[call-overload] # noqa: PTH123 it is open
            new.write(HEADER)
        return Path(name)

    def _check_absent(self) -> None:
        if os.path.lexists(self.out):
            raise BadTable(f"{self.out} exists and is complete; remove it, or name another OUT")

    def _keep_whole_rows(self, archive: str) -> None:
        """Record which images are answered; drop the broken ones, to retry them, and a torn last row."""
        with _scratch_beside(self.out) as folder:
            whole = Path(folder) / self._rows.name
            with whole.open("w", **TEXT) as kept:  # type: ignore[call-overload]
                if self._rows.suffix == CSV:
                    kept.write(HEADER)
                for row in _rows_of(self._rows, archive):
                    if not row.error:
                        self.done.add(row.image)
                        kept.write(_line(row, self._rows.suffix))
            shutil.copymode(self._rows, whole)
            whole.replace(self._rows)


def _scratch_beside(out: Path) -> tempfile.TemporaryDirectory[str]:
    # The name starts with the output's, so that nothing in it is taken for an image.
    return tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent)


def _rows_of(path: Path, archive: str) -> Iterator[Row]:
    """Yield the complete rows of an earlier run, broken ones included.

    A last row without an end is skipped: its run was killed. Raises BadTable if the file contains anything
    else, or answers of another archive.
    """
    with path.open(**TEXT) as file:  # type: ignore[call-overload]
        if path.suffix == CSV and (header := file.readline()) != HEADER:
            if not HEADER.startswith(header):  # an unterminated line is the last one
                raise _NotOurs(path)
            return
        for record in _records(file, path.suffix):
            row = _row_of(record, path.suffix)
            if row is None and _is_torn(record, path.suffix):
                return
            if row is None:
                raise _NotOurs(path)
            if not row.error and row.archive != archive:  # a broken one is retried, whichever archive it was
                raise BadTable(
                    f"{path} was begun with the archive {row.archive}, this is {archive}; "
                    "remove it, or name another OUT"
                )
            yield row


def _records(file: TextIO, suffix: str) -> Iterator[str]:
    """Yield the text of each record; in CSV, a name may contain line feeds."""
    record = ""
    for line in file:
        record += line
        if suffix == JSONL or record.count('"') % 2 == 0:
            yield record
            record = ""
    if record:
        yield record


def _row_of(record: str, suffix: str) -> Row | None:
    """Parse a record; return None if it has no end, or is not ours."""
    if not record.endswith("\n"):
        return None
    try:
        if suffix == CSV:
            [values] = csv.reader([record], strict=True)
        else:
            pairs = json.loads(record, object_pairs_hook=tuple)
            # Objects become tuples, with their keys in order; arrays become lists.
            if not isinstance(pairs, tuple) or tuple(key for key, _ in pairs) != COLUMNS:
                return None
            values = [value for _, value in pairs]
        if len(values) != len(COLUMNS) or not all(isinstance(value, str) for value in values):
            return None
        row = Row(*map(_from_cell, values) if suffix == CSV else values)
        return replace(row, image=unescaped(row.image))
    except (ValueError, RecursionError, csv.Error):
        return None


def _is_torn(record: str, suffix: str) -> bool:
    """Return whether a record without an end is the beginning of a row."""
    if suffix == JSONL:
        return _begins_as_json(record)
    if record.endswith("\n") and record.count('"') % 2 == 0:
        return False
    # An unclosed quotation mark makes one record of everything after it: rows must not get lost in it.
    if any(_row_of(f"{line}\n", suffix) for line in record.split("\n")[1:]):
        return False
    return record.count(",") < len(COLUMNS) or '"' in record


def _begins_as_json(record: str) -> bool:
    """Return whether a text is the beginning of a row as written here."""
    for column in COLUMNS:
        before = ("{" if column == COLUMNS[0] else ", ") + f'"{column}": '
        if not record.startswith(before):
            return before.startswith(record)
        record = record.removeprefix(before)
        if (value := STRING.match(record)) is None:
            return TORN_STRING.fullmatch(record) is not None
        record = record[value.end() :]
    return record in ("", "}")


def escaped(name: str) -> str:
    """Return a file's name as tables contain it: UTF-8, whatever bytes it has."""
    return os.fsencode(name.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")


def unescaped(text: str) -> str:
    """Return the file's name from which `escaped` made this text."""
    encoded = text.encode("utf-8", "surrogateescape")
    return os.fsdecode(ESCAPE.sub(lambda found: bytes.fromhex((found[1] or b"5c").decode()), encoded))


def _writable(row: Row) -> Row:
    """Return a row as it is written, whatever the format."""
    label, error = (HALF.sub("\ufffd", text) for text in (row.label, row.error))
    return replace(row, image=escaped(row.image), label=label, error=error)


def _line(row: Row, suffix: str) -> str:
    row = _writable(row)
    if suffix == JSONL:
        return json.dumps(asdict(row)) + "\n"
    cells = [_to_cell(text) for text in astuple(row)]
    line = io.StringIO()
    # The csv module does not quote a bare carriage return.
    quoting = csv.QUOTE_ALL if any("\r" in cell for cell in cells) else csv.QUOTE_MINIMAL
    writer = csv.writer(line, lineterminator="\n", quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(cells)
    return line.getvalue()


def _to_cell(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) else text


def _from_cell(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _to_parquet(rows: Iterator[Row], out: Path) -> None:
    # Imported only for Parquet: pyarrow is the largest dependency after torch.
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    with parquet.ParquetWriter(out, schema) as writer:
        while group := [asdict(_writable(row)) for row in islice(rows, GROUP)]:
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema))
