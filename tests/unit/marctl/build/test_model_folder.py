"""A model is a folder: its files are found, and what is missing is named."""

import pytest

from marctl.build.build import recipe_of
from marctl.build.model_folder import archive_of, options_of
from marctl.errors import UserError

CONTRACT = "input: {}\nlabels: [a, b]\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder mine in the working directory, with a class, weights and a contract."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    (mine / "golden").mkdir(parents=True)
    for name in ("resnet.py", "resnet.pth", "golden/1.png"):
        (mine / name).write_text(name)
    (mine / "model-config.yaml").write_text(CONTRACT)
    return mine


def says(folder, text):
    (folder / "model-config.yaml").write_text(f"{CONTRACT}archive: {text}\n")


@pytest.mark.usefixtures("folder")
def test_files_of_a_folder_are_found():
    """Class, weights, contract and images are found; the name is the folder's."""
    recipe = recipe_of(None, {"model": "mine"})
    assert (recipe.name, recipe.version, recipe.runtime) == ("mine", "1.0", "onnx")
    files = {str(recipe.model), str(recipe.weights), str(recipe.config), str(recipe.golden)}
    assert files == {"mine/resnet.py", "mine/resnet.pth", "mine/model-config.yaml", "mine/golden"}
    assert (recipe.labels, recipe.figures, recipe.requirements, recipe.extra_files) == (None, None, None, ())


def test_more_files_of_a_folder_are_taken(folder):
    """Labels, figures and requirements are found by name; the contract names any others."""
    for name in ("index_to_name.json", "resnet.json", "requirements.txt", "blocks.py", "notes.txt"):
        (folder / name).write_text(name)
    says(folder, '{name: r18, version: "2.0", model: resnet.py, extra_files: [blocks.py]}')
    recipe = recipe_of(None, {"model": "mine"})
    assert (recipe.name, recipe.version) == ("r18", "2.0")
    assert (str(recipe.labels), str(recipe.figures)) == ("mine/index_to_name.json", "mine/resnet.json")
    assert str(recipe.requirements) == "mine/requirements.txt"
    assert str(recipe.members["blocks.py"]) == "mine/blocks.py"
    assert "notes.txt" not in recipe.members
    assert archive_of({"MODEL": "mine"}) == "model_store/r18.mar"


def test_what_is_given_counts(folder):
    """A given name, version or file is used; what is not given comes from the folder."""
    (folder / "other.pth").write_text("other")
    says(folder, "{name: r18}")
    given = {"model": "mine", "weights": "mine/other.pth", "version": "3", "labels": "mine/resnet.py"}
    recipe = recipe_of("mine2", given)
    assert (recipe.name, recipe.version) == ("mine2", "3")
    assert (str(recipe.weights), str(recipe.model)) == ("mine/other.pth", "mine/resnet.py")


@pytest.mark.parametrize("weights", ["net.onnx", "net.pt"])
def test_weights_that_need_no_class_have_none(folder, weights):
    """ONNX and TorchScript run without a class."""
    (folder / "resnet.py").unlink()
    (folder / "resnet.pth").rename(folder / weights)
    recipe = recipe_of(None, {"model": "mine"})
    assert (recipe.model, recipe.runtime) == (None, "eager")


@pytest.mark.usefixtures("folder")
def test_file_of_a_class_is_taken_as_before():
    """MODEL=file.py with its own weights, contract and images needs no model folder."""
    given = {"model": "mine/resnet.py", "weights": "mine/resnet.pth", "config": "mine/model-config.yaml"}
    recipe = recipe_of("r", given | {"golden": "mine/golden"})
    assert (recipe.name, recipe.version, recipe.labels) == ("r", "1.0", None)
    without = recipe_of("r", given | {"model": "", "golden": "mine/golden"})
    assert (without.model, without.runtime) == (None, "eager")
    with pytest.raises(UserError, match=r"^there is no folder model; name a model folder"):
        recipe_of("r", given)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: (f / "model-config.yaml").unlink(), "the model folder mine has no model-config.yaml"),
        (lambda f: (f / "resnet.pth").unlink(), "the model folder mine has no weights; put a file there"),
        (lambda f: (f / "resnet.py").unlink(), "the model folder mine has no class for its weights"),
        (
            lambda f: (f / "train.py").touch(),
            "the model folder mine has 2 files that may be its class (resnet.py, train.py); "
            "name one in model-config.yaml: archive: {model: resnet.py}",
        ),
        (
            lambda f: (f / "best.safetensors").touch(),
            "the model folder mine has 2 files that may be its weights (best.safetensors, resnet.pth); name",
        ),
        (lambda f: says(f, "{model: none.py}"), "archive.model names none.py, but mine has no such file"),
        (lambda f: says(f, "{extra_files: [x]}"), "archive.extra_files names x, but mine has no such file"),
        (lambda f: says(f, "{class: resnet.py}"), "archive cannot contain class; it takes name, version"),
        (lambda f: says(f, "[name]"), "archive cannot contain ['name']; it takes"),
        (lambda f: says(f, "{version: 1.1}"), "archive.version is 1.1; write a string, in quotes"),
        (lambda f: says(f, "{extra_files: x.py}"), "archive.extra_files is 'x.py'; write a list"),
        (lambda f: says(f, "{name: a b}"), "NAME='a b' cannot be part of a URL"),
        (lambda f: says(f, "{"), "mine/model-config.yaml cannot be read: "),
    ],
    ids=[
        "no-contract", "no-weights", "no-class", "two-classes", "two-weights", "no-such-class",
        "no-such-file", "unknown-key", "a-list", "number", "no-list", "bad-name", "no-yaml",
    ],
)  # fmt: skip
def test_what_is_missing_is_named(folder, change, sentence):
    """The error names the folder, what it lacks and what to do."""
    change(folder)
    with pytest.raises(UserError) as error:
        recipe_of(None, {"model": "mine"})
    assert sentence in str(error.value)


def test_folder_with_nothing_given_is_asked_for_all(folder):
    """The folder gives the options that a user could give one by one."""
    assert options_of(folder, {}).keys() == {
        "version", "config", "golden", "weights", "model", "labels", "requirements",
    }  # fmt: skip
