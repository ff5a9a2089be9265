"""Workers inherit nothing that makes them run code other than the archive's and the environment's."""

import json
import zipfile

import pytest

from classifier.canonical import PROVENANCE, SUMS
from classifier.golden import ANSWERS
from marctl.serve.torchserve.instance import NOT_INHERITED
from tests.conftest import free_port, marctl
from tests.support.flask_process import flask_of

# Variables that the main process tolerates, unlike PYTHONINSPECT.
SET = {name: "1" for name in NOT_INHERITED if name.startswith("TORCH_")} | {
    "PYTHONSTARTUP": "/none.py", "PYTHONBREAKPOINT": "os.abort",
    "PYTHONUSERBASE": "/none", "PYTHONPYCACHEPREFIX": "/none", "PYTHONOPTIMIZE": "1",
    "LOCAL_RANK": "3", "WORLD_SIZE": "4",
}  # fmt: skip
HARMLESS = {"PYTHONUNBUFFERED": "1", "MINE": "kept"}


@pytest.fixture
def telling(archive, tmp_path):
    """An archive whose core writes its environment to a file; and that file."""
    told, mar = tmp_path / "told.json", tmp_path / "convnet.mar"
    code = f"\nimport os as _os\nPath({str(told)!r}).write_text(json.dumps(dict(_os.environ)))\n"
    with zipfile.ZipFile(archive) as sealed, zipfile.ZipFile(mar, "w") as changed:
        for name in sealed.namelist():
            data = sealed.read(name)
            if name not in (SUMS, PROVENANCE, ANSWERS):
                changed.writestr(name, data + code.encode() if name == "classifier/classifier.py" else data)
    return mar, told


def check_told(told) -> None:
    environ = json.loads(told.read_text())
    assert not environ.keys() & NOT_INHERITED
    assert environ.items() >= HARMLESS.items()


def test_torchserves_workers_inherit_no_other_code(telling, tmp_path):
    """Of the caller's variables, only those that change what code runs are left out."""
    mar, told = telling
    run = str(tmp_path / "run")
    try:
        arguments = ("--run", run, "--sealed", "no", "--port", str(free_port()), mar)
        done = marctl("serve", *arguments, **SET, **HARMLESS, EXPLAIN="0")
        assert done.returncode == 0, done.stderr
        check_told(told)
    finally:
        marctl("stop", "--run", run)


def test_flasks_workers_load_pickles_as_the_archive_says(telling):
    """They are forked: Python's own variables have already taken effect; torch reads its own later."""
    mar, told = telling
    torchs = {name: word for name, word in SET.items() if name.startswith("TORCH_")}
    with flask_of(mar, "--sealed", "no", **torchs, **HARMLESS, EXPLAIN="0"):
        check_told(told)
