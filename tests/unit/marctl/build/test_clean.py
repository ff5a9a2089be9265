"""marctl clean removes what was made here and is unchanged, and nothing else."""

import os
import shutil
from argparse import Namespace

import pytest

from marctl import records as build_records
from marctl.build import clean


def foreign(path):
    """Write a user's file, which this project did not make."""
    path.write_bytes(b"somebody's archive")
    return path


@pytest.fixture
def cleaned(tmp_path, monkeypatch):
    """A function that records a path as made here; marctl clean uses the same separate records."""
    records = build_records.Records(tmp_path / "records")
    monkeypatch.setattr(clean, "Records", lambda: records)

    def note(path):
        with records.making(path):
            records.write(path, build_records.digest(path), "inputs")
        return path

    return note


def test_clean_goes_past_links_pipes_and_what_cannot_go(tmp_path, cleaned, monkeypatch, capsys):
    """A link in place of a folder is removed and its target stays; nothing else stops the command."""
    names = ["a", "b", "c", "d", "e", "f"]
    folders = [tmp_path / name for name in names]
    for folder in folders:
        folder.mkdir()
        foreign(folder / "x")
        cleaned(folder)
    link, dangling, loop, pipe, stuck, plain = folders
    link.rename(tmp_path / "moved")
    for folder in (dangling, loop, pipe):
        shutil.rmtree(folder)
    link.symlink_to(tmp_path / "moved")
    dangling.symlink_to(tmp_path / "none")
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    remove = shutil.rmtree

    def stubborn(path):
        if path == stuck:
            raise PermissionError(1, "Operation not permitted", str(path / "x"))
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", stubborn)  # root can remove everything
    assert clean.run(Namespace()) == 1
    assert not os.path.lexists(link)
    assert not plain.exists()
    assert (tmp_path / "moved" / "x").read_bytes() == b"somebody's archive"
    said = capsys.readouterr()
    for path in (dangling, loop, pipe):
        assert os.path.lexists(path)
        assert f"{path} was changed since it was built, and is kept" in said.out
    assert f"error: {stuck} is kept; {stuck / 'x'}: Operation not permitted\n" == said.err
    monkeypatch.undo()
    monkeypatch.setattr(clean, "Records", lambda: build_records.Records(tmp_path / "records"))
    assert clean.run(Namespace()) == 0
    assert not stuck.exists()


@pytest.mark.parametrize("kind", ["text", "link", "folder", "signature"])
def test_clean_removes_signatures_alone(tmp_path, cleaned, kind):
    """What has the name of a signature but is not one belongs to the user."""
    mar, beside = tmp_path / "x.mar", tmp_path / "x.mar.sig"
    foreign(mar)
    cleaned(mar)
    match kind:
        case "text":
            beside.write_text("my notes")
        case "link":
            (tmp_path / "other").write_bytes(bytes(64))
            beside.symlink_to(tmp_path / "other")
        case "folder":
            beside.mkdir()
        case "signature":
            beside.write_bytes(bytes(64))
    assert clean.run(Namespace()) == 0
    assert not mar.exists()
    assert os.path.lexists(beside) == (kind != "signature")
