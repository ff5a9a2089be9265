"""pip-audit's findings are reported, and a package that it could not check is not a success."""

import json
from pathlib import Path

import pytest

from marctl.audit.accepted import Accepted
from marctl.audit.packages import vulnerabilities
from marctl.errors import UserError

REPORT = {
    "dependencies": [
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "bad", "version": "2.0", "vulns": [
            {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1", "3.0"], "description": ""},
            {"id": "PYSEC-2", "aliases": [], "fix_versions": [], "description": ""},
        ]},
        {"name": "own", "skip_reason": "it is on no index"},
    ]
}  # fmt: skip


def saying(folder: Path, text: str, code: int) -> Path:
    """Write a program that prints a text and exits, to stand in for pip-audit."""
    program = folder / "pip-audit"
    (folder / "said").write_text(text)
    program.write_text(f"#!/bin/sh\ncat {folder}/said\nexit {code}\n")
    program.chmod(0o755)
    return program


def test_flaws_are_named_but_for_the_accepted(tmp_path):
    """Each is reported with its id and the fixed version; any of its names can be accepted."""
    accepted = Accepted({"CVE-1": "it is not reached", "CVE-0": "it is gone"})
    number, found = vulnerabilities(saying(tmp_path, json.dumps(REPORT), 1), Path("a.txt"), "osv", accepted)
    assert number == 3
    assert found == [
        "a.txt pins bad 2.0, which has PYSEC-2, fixed in no version",
        "a.txt pins own, which was not checked: it is on no index",
    ]
    assert accepted.unused() == ["accepted.toml accepts CVE-0, which is no longer found; remove it"]


def test_service_that_finds_nothing_does_not_answer(tmp_path):
    """A report of packages that are all "not found" is not clean, although pip-audit exits with 0."""
    report = {"dependencies": [{"name": name, "skip_reason": "not found"} for name in ("a", "b")]}
    program = saying(tmp_path, json.dumps(report), 0)
    with pytest.raises(UserError, match=r"it finds none of the 2 packages\); .* make audit SERVICE=pypi"):
        vulnerabilities(program, Path("a.txt"), "osv", Accepted({}))


def test_no_report_is_no_answer(tmp_path):
    """Without a report nothing is known, whatever pip-audit's exit status."""
    with pytest.raises(UserError, match=r"it exited with status 0 and no message"):
        vulnerabilities(saying(tmp_path, "", 0), Path("a.txt"), "osv", Accepted({}))
