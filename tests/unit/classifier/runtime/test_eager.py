"""The model's class is found in its file, made with its arguments, and can import its neighbours."""

import sys

import pytest
import torch

from classifier.contract import BadContract
from classifier.runtime.eager import load_eager, load_source

LAYERS = "import torch\n\n\ndef layer(width):\n    return torch.nn.Linear(4, width)\n"
NET = """
import torch
{imports}


class Head(torch.nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.fc = layer(width)

    def forward(self, x):
        from layers import LATE
        return self.fc(x) + LATE


class Net(Head):
    pass
"""
MANIFEST = {"modelFile": "net.py", "serializedFile": "net.pth"}


@pytest.fixture
def folder(tmp_path):
    """A folder for a class, with its neighbour and its weights; its modules are unloaded afterwards."""
    (tmp_path / "layers.py").write_text(LAYERS + "\n\nLATE = 0.0\n")
    torch.save({f"fc.{name}": torch.zeros(shape) for name, shape in (("weight", (3, 4)), ("bias", 3))},
               tmp_path / "net.pth")  # fmt: skip
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("one_", "two_", "net", "layers")):
            del sys.modules[name]


@pytest.mark.parametrize(
    "imports",
    ["from layers import layer", "import layers\nlayer = layers.layer", "from .layers import layer",
     "from . import layers\nlayer = layers.layer"],
    ids=["absolute", "module", "relative", "relative-module"],
)  # fmt: skip
def test_class_imports_its_neighbours(folder, imports):
    """The import may be absolute, as in training, or relative, and run at import time or later."""
    (folder / "net.py").write_text(NET.format(imports=imports))
    model = load_eager(folder, MANIFEST, {"class": "Net"}, "cpu", "one_")
    assert model(torch.ones(2, 4)).tolist() == [[0.0] * 3] * 2
    assert not model.training
    assert {"net", "layers"}.isdisjoint(sys.modules)


def test_neighbours_of_two_folders_do_not_meet(tmp_path):
    """Two archives can have modules of the same name."""
    for name, value in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "layers.py").write_text(f"VALUE = {value}\n")
        (tmp_path / name / "net.py").write_text("from layers import VALUE\n")
    one, two = (load_source(tmp_path / name, "net", f"{name}_") for name in ("one", "two"))
    assert (one.VALUE, two.VALUE) == (1, 2)
    for name in ("one_net", "one_layers", "two_net", "two_layers"):
        del sys.modules[name]


def test_class_is_made_with_its_arguments(folder):
    """The contract's arguments are used; the error names a wrong one and says what to write."""
    (folder / "net.py").write_text(NET.format(imports="from layers import layer"))
    made = load_eager(folder, MANIFEST, {"class": "Net", "arguments": {"width": 3}}, "cpu", "one_")
    assert made.fc.out_features == 3
    with pytest.raises(BadContract, match=r"Net cannot be constructed with the arguments depth .*write"):
        load_eager(folder, MANIFEST, {"class": "Net", "arguments": {"depth": 3}}, "cpu", "one_")
    with pytest.raises(BadContract, match="arguments is 3; write names and values"):
        load_eager(folder, MANIFEST, {"class": "Net", "arguments": 3}, "cpu", "one_")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, "net.py defines Head, Net; it needs one class, or class: NAME"),
        ({"class": "Nett"}, "class is 'Nett', but net.py defines Head, Net; name one"),
        ({"class": ["Net"]}, r"class is \['Net'\], but net.py defines Head, Net; name one"),
    ],
    ids=["several", "unknown", "list"],
)
def test_class_that_is_not_clear_is_refused(folder, config, sentence):
    """The error names the classes in the file."""
    (folder / "net.py").write_text(NET.format(imports="from layers import layer"))
    with pytest.raises(BadContract, match=sentence):
        load_eager(folder, MANIFEST, config, "cpu", "one_")


def test_class_that_is_no_module_is_refused(folder):
    """The error names the class and says to derive it from torch.nn.Module."""
    (folder / "net.py").write_text("class Net:\n    pass\n")
    with pytest.raises(BadContract, match=r"Net in net.py is not a torch.nn.Module; derive it"):
        load_eager(folder, MANIFEST, {}, "cpu", "one_")


def test_weights_without_a_class_are_named(tmp_path):
    """A state_dict alone is not a model."""
    with pytest.raises(BadContract, match=r"the weights net.pth need a class; name it"):
        load_eager(tmp_path, {"serializedFile": "net.pth"}, {}, "cpu", "one_")
