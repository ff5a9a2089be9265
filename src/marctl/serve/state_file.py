"""State files: JSON that describes a process, written atomically."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the state. Raises OSError, and the old state stays."""
    whole = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        whole.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any] | None:
    """Return the state; None if the file is missing or not valid."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None
