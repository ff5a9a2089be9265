"""A locked export counts only for exactly what it was made from."""

import json
import shutil

import pytest

from marctl.build import locked_export
from marctl.build.locked_export import FILES, LOCK, MODEL
from marctl.build.recipe import recipe_of
from marctl.errors import UserError
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the model folder, with its locked export."""
    shutil.copytree(ROOT / "model", tmp_path / "model", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


def difference(**options):
    recipe = recipe_of(None, options)
    return locked_export.difference(recipe.locked, recipe)


def test_the_committed_export_is_of_these_files():
    """After a change of the class, the weights or the contract, it has to be made anew: make export."""
    recipe = recipe_of(None, {"model": str(ROOT / "model")})
    assert locked_export.difference(recipe.locked, recipe) is None


def edited(name, old, new):
    """Return a function that replaces text in a file of a model folder."""

    def edit(folder):
        file = folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return edit


def requiring(folder):
    """Add further packages, which may compute something else."""
    (folder / "requirements.txt").write_text("timm==1.0.12\n")


def swapped(folder):
    """Replace a golden image by another."""
    shutil.copy(folder / "golden" / "1.png", folder / "golden" / "0.png")


OTHERS = {
    "class": (edited("convnet.py", "import", "import sys\nimport"), "class"),
    "weights": (lambda folder: (folder / "convnet.pth").write_bytes(b"0"), "weights"),
    "mean": (edited("model-config.yaml", "mean: [0.1302]", "mean: [0.1307]"), "contract"),
    "labels": (edited("model-config.yaml", '["0"', '["zero"'), "contract"),
    "golden": (swapped, "golden images"),
    "preparation": (edited("model-config.yaml", "ink: 20", "ink: 19"), "contract, golden images"),
    "requirements": (requiring, "requirements"),
    "code": (edited(f"locked/{LOCK}", '"exporting code": "', '"exporting code": "0'), "exporting code"),
    "exporter": (edited(f"locked/{LOCK}", '"onnxscript": "', '"onnxscript": "1'), "onnxscript"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_is_named(folder, name):
    """The sentence says which of its inputs are others, and how to export anew."""
    change, named = OTHERS[name]
    change(folder)
    assert difference() == f"model/locked does not match the {named} (export it again: make export)"


def test_remedy_is_for_that_folder(folder):
    """Another folder's export is made anew by naming it, and that of a file put in its place not at all."""
    other = folder.rename("a model")
    (other / "convnet.pth").write_bytes(b"0")
    assert difference(model=str(other)) == (
        "a model/locked does not match the weights (export it again: make export MODEL='a model')"
    )
    weights = (other.parent / "other.pth").absolute()
    weights.write_bytes(b"0")
    assert difference(model=str(other), weights=str(weights)) == "a model/locked does not match the weights"
    second = other / "second.pth"
    second.write_bytes(b"0")
    assert difference(model=str(other), weights=str(second)) == "a model/locked does not match the weights"


def test_contract_may_have_a_date(folder):
    """YAML has dates and sets, which JSON has not."""
    arguments = ["since: 2024-01-01", 'since: "2024-01-01"', "of: !!set {a, b}", "2024-01-01: 1"]
    found = set()
    before = "input:"
    for one in arguments:
        after = f"arguments: {{{one}}}\ninput:"
        edited("model-config.yaml", before, after)(folder)
        before = after
        found.add(locked_export.made_from(recipe_of(None, {}))["contract"])
    assert len(found) == len(arguments)
    assert difference() == "model/locked does not match the contract (export it again: make export)"


def test_how_the_model_is_served_does_not_matter(folder):
    """More workers are no other model."""
    edited("model-config.yaml", "maxWorkers: 2", "maxWorkers: 4")(folder)
    assert difference() is None


def test_folder_without_an_export(folder):
    """Most people's folders have none: torch exports the class at each build."""
    shutil.rmtree(folder / "locked")
    assert recipe_of(None, {}).locked is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("[]", "it does not name files and outputs"),
        ('{"files": {}, "outputs": "perhaps"}', "it does not name files and outputs"),
        (None, "No such file or directory"),
    ],
    ids=["empty", "list", "kind", "missing"],
)
def test_lock_that_is_none_is_refused(folder, text, reason):
    """A damaged lock is neither trusted nor silently replaced."""
    lock = folder / "locked" / LOCK
    lock.unlink() if text is None else lock.write_text(text)
    with pytest.raises(UserError) as refused:
        difference()
    assert str(refused.value) == (
        f"model/locked/{LOCK} cannot be read: {reason}; export it again: make export, or delete model/locked"
    )


def test_file_that_was_not_locked_is_refused(folder):
    """A model that somebody replaced would otherwise be served as this class's export."""
    (folder / "locked" / MODEL).write_bytes(b"another")
    with pytest.raises(UserError, match=f"{MODEL} is not the file that {LOCK} names; export it again"):
        locked_export.read(folder / "locked")
    (folder / "locked" / MODEL).unlink()
    with pytest.raises(UserError, match=f"{MODEL} cannot be read: No such file or directory"):
        locked_export.read(folder / "locked")


def test_lock_names_every_file():
    """Nothing in the folder is unaccounted for."""
    told = json.loads((ROOT / "model" / "locked" / LOCK).read_text())
    present = {file.name for file in (ROOT / "model" / "locked").iterdir()}
    assert present == {*told[FILES], LOCK}
