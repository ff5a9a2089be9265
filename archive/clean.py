"""Remove what this checkout made, as long as it is still as it was made; whatever else lies there stays."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from build_records import Records
from signature import SUFFIX


def main() -> int:
    """Remove archives, their signatures and exports, and say what stays."""
    records = Records()
    for record in records.all():
        path = Path(record.path)
        if records.is_ours(path):
            _remove(path)
            path.with_name(path.name + SUFFIX).unlink(missing_ok=True)
        elif path.exists():
            print(f"{path} is not as it was made here, and stays")
        records.forget(path)
    return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())
