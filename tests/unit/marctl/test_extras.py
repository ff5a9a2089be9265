"""Every imported package is installed, or a sentence says what to install."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
import torch

from marctl.cli import COMMANDS
from marctl.extras import EXTRAS, need, remedy
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


# Two import what they need even to show their options.
LISTED = {name for name, command in COMMANDS.items() if command.help} - {"article", "flask"}


@pytest.mark.parametrize("command", sorted(LISTED))
def test_help_needs_no_extra(command):
    """The base installation shows the help of each command."""
    done = lacking(EXTRAS, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: marctl {command}")
