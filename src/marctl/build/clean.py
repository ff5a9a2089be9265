"""Delete what this checkout built, unless it was changed since; other files are kept."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from marctl.archive.signing import SUFFIX, is_signature
from marctl.printable import printable
from marctl.records import Records


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(_: argparse.Namespace) -> int:
    """Delete archives, their signatures and exports, and report what is kept; return 1 if deleting failed."""
    records = Records()
    status = 0
    for record in records.all():
        path = Path(record.path)
        try:
            _clean(path, records)
        except OSError as error:
            where = printable(str(error.filename or path))
            print(f"error: {printable(str(path))} is kept; {where}: {error.strerror}", file=sys.stderr)
            status = 1
        else:
            records.forget(path)
    return status


def _clean(path: Path, records: Records) -> None:
    if not records.is_ours(path):
        if os.path.lexists(path):
            print(f"{printable(str(path))} was changed since it was built, and is kept")
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    signature = path.with_name(path.name + SUFFIX)
    if is_signature(signature):
        signature.unlink()
    elif os.path.lexists(signature):
        print(f"{printable(str(signature))} is not a signature, and is kept")
