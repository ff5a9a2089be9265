"""The bill of materials never overwrites a user's file."""

import hashlib
import json
import os
import zipfile

import pytest

from marctl import records as build_records
from marctl.audit import bill
from marctl.errors import UserError


def foreign(path):
    """Write a user's file, which this project did not make."""
    path.write_bytes(b"somebody's archive")
    return path


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder", "pipe"])
def test_bill_is_written_over_no_file_of_a_user(tmp_path, kind):
    """It replaces only an unchanged file that was made here, and never follows a link."""
    records = build_records.Records(tmp_path / "records")
    path, other = tmp_path / "out" / "x.cdx.json", tmp_path / "other"
    bill.keep(path, "{}\n", records)
    bill.keep(path, "[]\n", records)
    assert path.read_text() == "[]\n"
    assert list(path.parent.iterdir()) == [path]
    path.unlink()
    match kind:
        case "file":
            foreign(path)
        case "link":
            path.symlink_to(foreign(other))
        case "dangling":
            path.symlink_to(other)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    with pytest.raises(UserError, match="was not made by this checkout and is left as it is; move it away"):
        bill.keep(path, "{}\n", records)
    assert os.path.lexists(path)
    assert kind != "file" or path.read_bytes() == b"somebody's archive"
    assert other.exists() == (kind == "link")


def test_archive_that_was_not_sealed_is_listed_by_its_digest(tmp_path):
    """Another project's archive, which an image may contain, has no records to check."""
    mar = tmp_path / "digits.mar"
    manifest = {"model": {"modelName": "digits", "modelVersion": "1.0", "handler": "handler.py"}}
    with zipfile.ZipFile(mar, "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        packed.writestr("handler.py", "")
    listed = bill._archive(mar)
    assert (listed["name"], listed["version"], listed["properties"]) == ("digits", "1.0", [])
    sha256 = hashlib.sha256(mar.read_bytes()).hexdigest()
    assert listed["hashes"] == [{"alg": "SHA-256", "content": sha256}]
