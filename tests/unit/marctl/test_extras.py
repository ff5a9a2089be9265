"""Every imported package is installed, or a sentence says what to install."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter

import pytest
import torch
from torch._weights_only_unpickler import _get_allowed_globals

from marctl.cli import COMMANDS
from marctl.errors import UserError
from marctl.extras import EXTRAS, need, remedy
from marctl.makefile import completed
from marctl.verify import look
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Import names that differ from the package's name.
IMPORTED_AS = {
    "pyyaml": "yaml", "pillow": "PIL", "torchserve": "ts", "kornia-rs": "kornia_rs",
    "torch-model-archiver": "model_archiver",
}  # fmt: skip


def pinned(pins):
    """Return the pins of a list, without this project's own extras."""
    return {re.sub(r"\[.*\]", "", pin) for pin in pins if not pin.startswith("marctl[")}


def imported(names):
    return {IMPORTED_AS.get(name.partition("==")[0], name.partition("==")[0]) for name in names}


def imports_of(file):
    """Return the third-party modules that a file imports."""
    tree = ast.walk(ast.parse(file.read_text()))
    modules = set()
    for node in tree:
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module.partition(".")[0])
    return modules - sys.stdlib_module_names - {"marctl", "classifier", "convnet_handler"}


def test_every_import_has_an_extra():
    """An imported package is in the base installation, or its error names the extra that has it."""
    extras = PROJECT["project"]["optional-dependencies"]
    base = imported(pinned(PROJECT["project"]["dependencies"]))
    files = [file for folder in ("src", "handler") for file in sorted((ROOT / folder).rglob("*.py"))]
    # TensorFlow and the audit tools have their own environments, which only a checkout creates.
    apart = {"tensorflow", "onnx2tf", "cyclonedx"}
    assert set().union(*map(imports_of, files)) - base - apart <= EXTRAS.keys()
    for module, extra in EXTRAS.items():
        # Flask brings werkzeug.
        assert module in imported(pinned(extras[extra])) | {"werkzeug"}


def test_missing_package_is_named_with_its_extra():
    """The error has the command that installs it; any other missing module is a bug."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as missing:
        need("json", "no_such_module")
    assert remedy(missing.value) is None
    assert remedy(ModuleNotFoundError(name="onnxruntime")) == (
        "this needs onnxruntime, which is not installed; install it: pip install 'marctl[predict]'"
    )


def test_weights_are_not_called_hostile_for_want_of_torch(monkeypatch, tmp_path):
    """Without torch a file of torch's old format cannot be checked, and the message says so."""
    old = tmp_path / "old.pth"
    torch.save({"weight": torch.zeros(1)}, old, _use_new_zipfile_serialization=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert list(look._runs(ROOT / "model" / "convnet.pth", None)) == []
    assert list(look._runs(old, None)) == [
        "cannot be checked without torch; install it: pip install 'marctl[torch]'"
    ]


def test_what_torch_loads_as_weights_only_is_known():
    """The names are torch's own, and no function of torch is among them by mistake."""
    loaded = {tuple(name.rpartition(".")[::2]) for name in _get_allowed_globals()}
    assert [name for name in loaded if not look.is_weights_only(*name)] == []
    others = {("torch", name) for name in dir(torch) if callable(getattr(torch, name))} - loaded
    assert {("torch", "load"), ("torch", "float_power")} <= others
    assert [name for name in others if look.is_weights_only(*name)] == []
    assert not look.is_weights_only("os", "system")
    assert not look.is_weights_only("builtins", "eval")


@pytest.mark.parametrize(
    "saved",
    [
        {"weight": torch.zeros(2, dtype=torch.complex64)},
        {"weight": torch.zeros(2, dtype=torch.uint16), "scale": torch.zeros(1, dtype=torch.float8_e5m2)},
        {"state_dict": {"weight": torch.zeros(2)}, "dtype": torch.float16, "device": torch.device("cpu")},
        {"weight": torch.nn.Parameter(torch.zeros(2)), "seen": Counter("ab"), "tag": b"\xff", "all": {1, 2}},
    ],
    ids=["complex", "small", "checkpoint", "parameter"],
)
def test_good_weights_are_good_without_torch(monkeypatch, tmp_path, saved):
    """The verdict does not depend on whether torch is installed."""
    file = tmp_path / "weights.pth"
    torch.save(saved, file)
    assert list(look._runs(file, None)) == []
    monkeypatch.setitem(sys.modules, "torch", None)
    assert list(look._runs(file, None)) == []


# Runs marctl as if these modules were not installed.
LACKING = """
import sys
class Lacking:
    modules = sys.argv.pop(1).split()
    def find_spec(self, name, path=None, target=None):
        if name in self.modules:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Lacking())
from marctl.cli import main
sys.exit(main())
"""


def lacking(modules, *words):
    command = [sys.executable, "-P", "-c", LACKING, " ".join(modules), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (["serve", "model_store/convnet.mar"], "ts", "serve"),
        (["up", "model_store/convnet.mar"], "ts", "serve"),
        (["archive", "--mar", "model_store/.never-built.mar"], "model_archiver", "archive"),
        (["flask", "model_store/convnet.mar"], "gunicorn", "flask"),
        (["predict", "--url", "http://127.0.0.1:1", "tests/images/2.png"], "httpx", "client"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_command_names_the_extra_that_it_needs(words, module, extra):
    """The error comes before anything is started or built."""
    done = lacking([module], *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: this needs {module}, which is not installed; install it: pip install 'marctl[{extra}]'\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--runtime", "onix"], "RUNTIME=onix is not known; use one of eager, torchscript, onnx, aoti"),
        (
            ["", "--weights", "model/locked/model.onnx", "--runtime", "onnx"],
            "model/locked/model.onnx has no class to export; build it from one: MODEL=file.py",
        ),
    ],
    ids=["unknown", "no-class"],
)
def test_what_cannot_be_built_asks_for_no_torch(words, sentence):
    """Nobody installs torch only to learn that it does not help."""
    done = lacking(["torch", "onnx"], "archive", *words, "--mar", "model_store/.never-built.mar")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {sentence}\n")


def test_export_refuses_what_it_would_ignore(monkeypatch, tmp_path):
    """It locks what is in the folder: an option would be lost, and a file has no folder."""
    monkeypatch.setenv("WEIGHTS", "other.pth")
    with pytest.raises(UserError, match="exports what is in the model folder; leave out WEIGHTS"):
        completed(["relock"], "relock", ["WEIGHTS"])
    done = lacking([], "relock", str(tmp_path / "net.py"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "net.py is not a model folder; docs/your-own-model.md shows such a folder" in done.stderr


# Two import what they need even to show their options.
LISTED = {name for name, command in COMMANDS.items() if command.help} - {"article", "flask"}


@pytest.mark.parametrize("command", sorted(LISTED))
def test_help_needs_no_extra(command):
    """The base installation shows the help of each command."""
    done = lacking(EXTRAS, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: marctl {command}")
