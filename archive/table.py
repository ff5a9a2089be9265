"""The answers of a batch as a file: CSV, JSON lines or Parquet, one row a picture, written as they come."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


class BadTable(ValueError):
    """An output file that cannot be written or gone on with; the text says why."""


@dataclass(frozen=True)
class Row:
    """What became of one picture: a label, or the error that it met instead."""

    image: str
    label: str
    error: str
    archive: str  # the first digits of the archive's SHA-256; last, so that a torn row shows


COLUMNS = tuple(field.name for field in fields(Row))
ERROR = COLUMNS.index("error")
CSV, JSONL, PARQUET = ".csv", ".jsonl", ".parquet"
# Names of files are bytes to Linux: what is no UTF-8 is kept as it is.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


class Table:
    """An output file that is gone on with where an earlier run stopped."""

    def __init__(self, out: Path, archive: str) -> None:
        """Open `out`, or the rows of an earlier run with the same archive. Raises BadTable."""
        if out.suffix not in (CSV, JSONL, PARQUET):
            raise BadTable(f"OUT={out} ends with none of {CSV}, {JSONL}, {PARQUET}")
        self.out = out
        self.done: set[str] = set()
        # Parquet cannot be appended to: its rows are collected as CSV, and turned into it at the end.
        self._rows = out.with_name(out.name + ".part.csv") if out.suffix == PARQUET else out
        try:
            self._keep_whole_rows(archive)
            self._file = self._rows.open("a", **TEXT)  # type: ignore[call-overload]
        except OSError as error:
            raise BadTable(f"OUT={out} cannot be written: {error.strerror}") from error
        if self._rows.suffix == CSV and not self._file.tell():
            self._file.write(",".join(COLUMNS) + "\n")

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows, and see them to the operating system."""
        self._file.write("".join(_line(row, self._rows.suffix) for row in rows))
        self._file.flush()

    def finish(self) -> None:
        """Turn the collected rows into Parquet, if that is what was asked for."""
        self._file.close()
        if self.out.suffix == PARQUET:
            _to_parquet(self._rows, self.out)
            self._rows.unlink()

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _keep_whole_rows(self, archive: str) -> None:
        """Note which pictures are answered; drop the broken ones, to be tried again, and a torn last row."""
        if self.out.suffix == PARQUET and self.out.exists():
            raise BadTable(f"{self.out} is there and complete; remove it, or name another OUT")
        if not self._rows.exists():
            return
        whole = self._rows.with_name(self._rows.name + ".whole")
        try:
            with whole.open("w", **TEXT) as kept:  # type: ignore[call-overload]
                if self._rows.suffix == CSV:
                    kept.write(",".join(COLUMNS) + "\n")
                for row in self._read(archive):
                    self.done.add(row.image)
                    kept.write(_line(row, self._rows.suffix))
            whole.replace(self._rows)
        finally:
            whole.unlink(missing_ok=True)

    def _read(self, archive: str) -> Iterator[Row]:
        """Yield the answers of an earlier run with this archive. Raises BadTable for any others.

        Only the last row may be torn, when its run was killed: it is passed over.
        """
        torn = False
        with self._rows.open(**TEXT) as file:  # type: ignore[call-overload]
            for values in _records(file, self._rows.suffix):
                if torn:
                    raise BadTable(f"{self._rows} is not a file of answers; name another OUT")
                if _is_row(values) and values[ERROR]:  # tried again, whichever archive it was
                    continue
                torn = not _is_row(values) or (values[-1] != archive and archive.startswith(values[-1]))
                if torn:
                    continue
                if values[-1] != archive:
                    raise BadTable(
                        f"{self._rows} was begun with the archive {values[-1]}, this is {archive}; "
                        "remove it, or name another OUT"
                    )
                yield Row(*values)


def _records(file: TextIO, suffix: str) -> Iterator[list[Any]]:
    """Yield the values of each record, of whatever kind they are."""
    if suffix == JSONL:
        for line in file:
            try:
                yield list(json.loads(line).values())
            except (ValueError, AttributeError):
                yield []
        return
    rows = csv.reader(file)
    header = next(rows, None)
    if header is not None and header != list(COLUMNS) and not ",".join(COLUMNS).startswith(",".join(header)):
        raise BadTable(f"{file.name} is not a file of answers; name another OUT")
    yield from rows


def _is_row(values: list[Any]) -> bool:
    return len(values) == len(COLUMNS) and all(isinstance(value, str) for value in values)


def _line(row: Row, suffix: str) -> str:
    if suffix == JSONL:
        return json.dumps(asdict(row)) + "\n"
    line = io.StringIO()
    # A bare carriage return in a file's name is not quoted by itself.
    quoting = csv.QUOTE_ALL if "\r" in row.image else csv.QUOTE_MINIMAL
    writer = csv.writer(line, lineterminator="\n", quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(asdict(row).values())
    return line.getvalue()


def _to_parquet(rows: Path, out: Path) -> None:
    # Only where somebody asks for Parquet: pyarrow is larger than all else here but torch.
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    types = {name: pa.string() for name in COLUMNS}
    options = arrow_csv.ConvertOptions(column_types=types)
    parsing = arrow_csv.ParseOptions(newlines_in_values=True)
    part = out.with_name(out.name + ".part")
    with (
        arrow_csv.open_csv(rows, convert_options=options, parse_options=parsing) as batches,
        parquet.ParquetWriter(part, batches.schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
    part.replace(out)
