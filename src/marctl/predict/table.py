r"""The answers of a batch as a file: CSV, JSON lines or Parquet, one row an image, written as they come.

Two things are written otherwise than they are, in a way that can be undone:

- In an image's name, in all three formats, a backslash is `\\`, and a byte that is not UTF-8 is `\xff`.
- In CSV, a cell that a spreadsheet program would take for a formula has an apostrophe before it.
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
    """An output file that cannot be written or gone on with; the text says why, fit for a terminal."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text, most=2000))


@dataclass(frozen=True)
class Row:
    """What became of one image: a label, or the error that it met instead."""

    image: str
    label: str
    error: str
    archive: str  # the first digits of the archive's SHA-256; last, so that a torn row shows


COLUMNS = tuple(field.name for field in fields(Row))
HEADER = ",".join(COLUMNS) + "\n"
CSV, JSONL, PARQUET = ".csv", ".jsonl", ".parquet"
COLLECTED = ".part.csv"  # how the name ends under which rows for Parquet are collected
# What is no UTF-8 is not ours, and has to be read to be recognised. A row ends with a line feed alone.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
STRING, TORN_STRING = re.compile(r'"(?:[^"\\]|\\.)*"'), re.compile(r'(?:"(?:[^"\\]|\\.)*\\?)?')
# Halves of characters, which a server's JSON may hold and no file can.
HALF = re.compile("[\ud800-\udfff]")
ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")
# What makes a formula of a cell, by OWASP's page on CSV injection. The apostrophes before it are for the way
# back: a text that begins with one and then so gets another one.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
GROUP = 2**16  # rows of a Parquet file that are in memory at once
# A label of another project's model may be long.
csv.field_size_limit(sys.maxsize)


class _NotOurs(BadTable):
    """A file that holds something else than answers."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not a file of answers; name another OUT")


class Table:
    """An output file that is gone on with where an earlier run stopped."""

    def __init__(self, out: Path, archive: str) -> None:
        """Open `out`, or the rows of an earlier run with the same archive. Raises BadTable."""
        if out.suffix not in (CSV, JSONL, PARQUET):
            raise BadTable(f"OUT={out} ends with none of {CSV}, {JSONL}, {PARQUET}")
        if out.is_symlink():
            raise BadTable(f"OUT={out} is a link, which is not written through; name a file")
        if os.path.lexists(out) and not out.is_file():
            raise BadTable(f"OUT={out} is no file; name a file, or one that is not there yet")
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
        """Append rows, and see them to the operating system. Raises BadTable."""
        with self._writing():
            self._file.write("".join(_line(row, self._rows.suffix) for row in rows))
            self._file.flush()

    def finish(self) -> None:
        """Turn the collected rows into Parquet, if that is what was asked for. Raises BadTable."""
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
        """Return where the rows for a Parquet file are collected, as CSV: it cannot be appended to.

        A file of an earlier run is known by its content. One that holds anything else is somebody's.
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
            raise BadTable(f"{self.out} is there and complete; remove it, or name another OUT")

    def _keep_whole_rows(self, archive: str) -> None:
        """Note which images are answered; drop the broken ones, to be tried again, and a torn last row."""
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
    # The name begins like that of the output, so that nothing in it is taken for an image.
    return tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent)


def _rows_of(path: Path, archive: str) -> Iterator[Row]:
    """Yield the whole rows of an earlier run, broken ones as well.

    A last row without its end is passed over: its run was killed. Raises BadTable where the file holds
    anything else, or answers of another archive.
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
            if not row.error and row.archive != archive:  # broken: tried again, whichever archive it was
                raise BadTable(
                    f"{path} was begun with the archive {row.archive}, this is {archive}; "
                    "remove it, or name another OUT"
                )
            yield row


def _records(file: TextIO, suffix: str) -> Iterator[str]:
    """Yield the text of each record; of a CSV row, a name may hold line feeds."""
    record = ""
    for line in file:
        record += line
        if suffix == JSONL or record.count('"') % 2 == 0:
            yield record
            record = ""
    if record:
        yield record


def _row_of(record: str, suffix: str) -> Row | None:
    """Return what a record says; None where it has no end, or is none of ours."""
    if not record.endswith("\n"):
        return None
    try:
        if suffix == CSV:
            [values] = csv.reader([record], strict=True)
        else:
            told = json.loads(record, object_pairs_hook=tuple)
            # A tuple is an object here, with its keys in order; a list was a list.
            if not isinstance(told, tuple) or tuple(key for key, _ in told) != COLUMNS:
                return None
            values = [value for _, value in told]
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
    # A quotation mark that nobody closed makes one record of all that follows: rows must not get lost in it.
    if any(_row_of(f"{line}\n", suffix) for line in record.split("\n")[1:]):
        return False
    return record.count(",") < len(COLUMNS) or '"' in record


def _begins_as_json(record: str) -> bool:
    """Return whether a text is how a row begins, as it is written here."""
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
    """Return a file's name as every table holds it, in UTF-8 whichever bytes it has."""
    return os.fsencode(name.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")


def unescaped(text: str) -> str:
    """Return the name of the file that `escaped` made this text of."""
    encoded = text.encode("utf-8", "surrogateescape")
    return os.fsdecode(ESCAPE.sub(lambda found: bytes.fromhex((found[1] or b"5c").decode()), encoded))


def _told(row: Row) -> Row:
    """Return a row as it is written, whatever the format."""
    label, error = (HALF.sub("\ufffd", text) for text in (row.label, row.error))
    return replace(row, image=escaped(row.image), label=label, error=error)


def _line(row: Row, suffix: str) -> str:
    row = _told(row)
    if suffix == JSONL:
        return json.dumps(asdict(row)) + "\n"
    cells = [_to_cell(text) for text in astuple(row)]
    line = io.StringIO()
    # A bare carriage return is not quoted by itself.
    quoting = csv.QUOTE_ALL if any("\r" in cell for cell in cells) else csv.QUOTE_MINIMAL
    writer = csv.writer(line, lineterminator="\n", quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(cells)
    return line.getvalue()


def _to_cell(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) else text


def _from_cell(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _to_parquet(rows: Iterator[Row], out: Path) -> None:
    # Only where somebody asks for Parquet: pyarrow is larger than all else here but torch.
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    with parquet.ParquetWriter(out, schema) as writer:
        while group := [asdict(_told(row)) for row in islice(rows, GROUP)]:
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema))
