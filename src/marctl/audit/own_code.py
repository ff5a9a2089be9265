"""What bandit finds in this project's own code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marctl.audit.accepted import Accepted
from marctl.errors import UserError

FOLDERS = ("model", "handler", "src", "training", "bench")


def findings(bandit: Path, folders: Sequence[Path], accepted: Accepted) -> tuple[int, list[str]]:
    """Return the number of lines scanned, and a sentence for each finding that is not accepted.

    Raises UserError.
    """
    command: list[str | Path] = [bandit, "--recursive", "--quiet", "--format", "json", *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise UserError(f"bandit printed no report: {done.stderr.strip()}") from None
    if report["errors"]:
        raise UserError(f"bandit could not read everything: {report['errors']}")
    return report["metrics"]["_totals"]["loc"], [
        _sentence(one) for one in report["results"] if not accepted.covers(_names(one))
    ]


def _names(finding: dict[str, Any]) -> tuple[str, str]:
    """Return the ids that accept a finding: its test everywhere, or in its file only."""
    return finding["test_id"], f"{finding['test_id']} {finding['filename']}"


def _sentence(finding: dict[str, Any]) -> str:
    where = f"{finding['filename']}:{finding['line_number']}"
    return f"{where}: {finding['test_id']}, {finding['issue_text']}"
