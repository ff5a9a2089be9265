"""Imports run one way: training, bench, marctl, classifier. Nothing imports the tests."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

# The folder of each package, and which other packages it may import.
FOLDERS = {
    "classifier": "handler",
    "convnet_handler": "handler",
    "model": ".",
    "marctl": "src",
    "bench": ".",
    "training": ".",
}
MAY_IMPORT = {
    "classifier": set(),
    "convnet_handler": {"classifier"},
    "model": set(),
    "marctl": {"classifier"},
    "bench": {"marctl", "classifier", "model"},
    "training": {"bench", "marctl", "classifier", "model"},  # its report is written with bench's code
}
# Inside the archive a module imports only from its own line and those above, the way of a request.
ORDER = (
    "errors",
    "headers",
    "canonical",
    "golden",
    "outputs",
    "contract",
    "messages",
    "image",
    "answers",
    "explain",
    "protocols",
    "runtime",
    "metrics",
    "classifier",
    "torchserve",
)
# A worker without torch takes half a gigabyte less; the others need not be installed.
LAZY = {"torch", "captum", "onnxruntime", "safetensors"}
TORCHS_OWN = "classifier.runtime.torch"  # imported only within functions
# Code for other servers follows their own documentation, and is in none of the packages.
FOREIGN = {"bench/servers/others", "bench/servers/torchserve"}
CHANGES_THE_PATH = re.compile(
    r"sys\.path(?:\.(?:insert|append|extend)\(|\[[^\]]*\] *=[^=]|  ?\+?=[^=])|addsitedir|PYTHONPATH"
)
MAY_CHANGE_THE_PATH = {
    "src/marctl/serve/torchserve/instance.py": "TorchServe's workers start with one folder in the path",
    "src/marctl/predict/foreign.py": "another project's handler imports its neighbours in the archive",
    "src/marctl/verify/trial.py": "runs in the sandbox, as a worker does",
    "src/marctl/adopt/apart.py": "runs in the sandbox, which has no installed packages of ours",
}


class Import(NamedTuple):
    """One import: the resolved name of the module, and how it is imported."""

    module: str
    is_relative: bool
    is_lazy: bool  # within a function, or only for types


def files() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        found = [ROOT / folder / f"{package}.py", *sorted((ROOT / folder / package).rglob("*.py"))]
        for path in found:
            if path.is_file() and not any(path.is_relative_to(ROOT / one) for one in FOREIGN):
                yield package, path


def name_of(package: str, path: Path) -> str:
    words = path.relative_to(ROOT / FOLDERS[package]).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


MODULES = {name_of(package, path): path for package, path in files()}


@cache
def imports_of(name: str) -> tuple[Import, ...]:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    return tuple(found(tree.body, name, is_lazy=False))


def found(statements: list[ast.stmt], name: str, *, is_lazy: bool) -> Iterator[Import]:
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (Import(one.name, False, is_lazy) for one in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            source = resolved(statement, name)
            for one in statement.names:
                whole = f"{source}.{one.name}"
                yield Import(whole if whole in MODULES else source, statement.level > 0, is_lazy)
        else:
            later = (
                is_lazy
                or isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
                or (isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test))
            )
            inside = [part for part in ast.iter_child_nodes(statement) if isinstance(part, ast.stmt)]
            inside += [
                part
                for block in ast.iter_child_nodes(statement)
                if isinstance(block, ast.ExceptHandler | ast.match_case)
                for part in block.body
            ]
            yield from found(inside, name, is_lazy=later)


def resolved(statement: ast.ImportFrom, name: str) -> str:
    if not statement.level:
        return statement.module or ""
    words = name.split(".") + ([""] if MODULES[name].name == "__init__.py" else [])
    return ".".join([*words[: -statement.level], *filter(None, [statement.module])])


def layer(name: str) -> str:
    """Return the line of ORDER that a module of the archive belongs to."""
    return name.split(".")[1]


def part_of_the_tool(name: str) -> str:
    """Return the package or module of marctl that a module belongs to."""
    return name.split(".")[1]


def test_modules_are_found():
    """The reader finds modules of each package and the kind of each import."""
    assert {name.partition(".")[0] for name in MODULES} == set(FOLDERS)
    assert Import("classifier.contract", True, False) in imports_of("classifier.classifier")
    assert Import("classifier.runtime.torch", True, True) in imports_of("classifier.classifier")
    assert Import("ts.torch_handler.base_handler", False, False) in imports_of("convnet_handler")


@pytest.mark.parametrize("package", FOLDERS)
def test_packages_import_no_package_before_them(package):
    """The archive's core imports no server, the tool no measurement, and none of them a test."""
    back = {
        f"{name} imports {one.module}"
        for name in MODULES
        if name.partition(".")[0] == package
        for one in imports_of(name)
        if (other := one.module.partition(".")[0]) in {*FOLDERS, "tests"}
        and other not in {package, *MAY_IMPORT[package]}
    }
    assert back == set()


def test_no_two_modules_need_each_other():
    """There is no cycle, not even through a third module or an import within a function."""
    needs = {
        name: {one.module for one in imports_of(name) if one.module in MODULES} - {name} for name in MODULES
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_packages_of_the_tool_import_one_way():
    """No two of marctl's packages need each other: each can be read, and changed, without those behind it."""
    needs: dict[str, set[str]] = {}
    for name in MODULES:
        if name.startswith("marctl."):
            others = {
                part_of_the_tool(one.module) for one in imports_of(name) if one.module.startswith("marctl.")
            }
            needs.setdefault(part_of_the_tool(name), set()).update(others)
    try:
        TopologicalSorter({part: others - {part} for part, others in needs.items()}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


ARCHIVED = [name for name in MODULES if name.startswith("classifier.")]


@pytest.mark.parametrize("name", ARCHIVED)
def test_archive_imports_its_own_modules_by_relative_imports_in_one_order(name):
    """It can be loaded under any name, twice in one process; no step of a request calls an earlier one."""
    for one in imports_of(name):
        if one.module.partition(".")[0] == "classifier":
            assert one.is_relative, f"{name} imports {one.module} by an absolute import"
            assert ORDER.index(layer(one.module)) <= ORDER.index(layer(name)), f"{name} imports {one.module}"


def test_every_module_of_the_archive_has_its_place_in_the_order():
    """The order names all modules of the archive, and no others."""
    assert {layer(name) for name in ARCHIVED} == set(ORDER)


def test_torchserve_is_known_to_its_adapter_alone():
    """In the archive only the adapter and the entry point import ts: the core opens without a server."""
    knowing = {
        name
        for name in MODULES
        if name.partition(".")[0] in {"classifier", "convnet_handler"}
        for one in imports_of(name)
        if one.module.partition(".")[0] == "ts"
    }
    adapters = {name for name in knowing if name.startswith("classifier.torchserve.")}
    assert knowing - adapters == {"convnet_handler"}


@pytest.mark.parametrize("name", [*ARCHIVED, "convnet_handler"])
def test_archive_imports_heavy_packages_when_they_are_needed(name):
    """The imports are within functions; the one torch module is itself imported within functions."""
    eager = {one.module for one in imports_of(name) if not one.is_lazy}
    assert TORCHS_OWN not in eager
    heavy = {module.partition(".")[0] for module in eager} & LAZY
    assert heavy == ({"torch"} if name == TORCHS_OWN else set())


def code_of(path: Path) -> str:
    """Return a module's code without docstrings and comments."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return ast.unparse(tree)


def test_nothing_changes_where_modules_are_found():
    """An installed environment finds all modules; each exception has a reason and is still needed."""
    changing = {
        str(path.relative_to(ROOT))
        for folder in ("handler", "src", "training", "bench")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not any(path.is_relative_to(ROOT / one) for one in FOREIGN)
        and CHANGES_THE_PATH.search(code_of(path))
    }
    assert changing == set(MAY_CHANGE_THE_PATH)
    for file in ("Makefile", "Dockerfile", *(ROOT / "setup").glob("*"), *(ROOT / ".ci").glob("*")):
        assert not re.search(r"PYTHONPATH *[:?+]?=", (ROOT / file).read_text(encoding="utf-8")), file
