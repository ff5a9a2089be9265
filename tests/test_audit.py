"""make audit: what it finds stops it, what it could not ask is said, what it writes is what is served."""

import json
import re
from pathlib import Path

import pytest

from accepted import Accepted, BadList
from conftest import ROOT, make
from jar import SHA256, digest, libraries
from own_code import FOLDERS, findings
from packages import NotAsked, flaws
from served_copies import sha256

JAR = next((ROOT / ".venv").glob("lib/python*/site-packages/ts/frontend/model-server.jar"))
TOOLS = ROOT / ".venv-audit" / "bin"
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


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """What make audit prints where the network has nothing."""
    nowhere, cache = "http://127.0.0.1:1", str(tmp_path_factory.mktemp("cache"))
    variables = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), nowhere)
    # What was answered before must not be taken for an answer now.
    variables |= dict.fromkeys(("XDG_CACHE_HOME", "PIP_CACHE_DIR"), cache)
    variables |= dict.fromkeys(("no_proxy", "NO_PROXY"), "")
    assert make(".venv-audit/installed").returncode == 0
    return make("audit", **variables)


@pytest.fixture(scope="module")
def bill(audited):
    """The bill of materials that it writes."""
    assert "exported/convnet.cdx.json: the archive," in audited.stdout, audited.stderr
    return json.loads((ROOT / "exported" / "convnet.cdx.json").read_text())


def test_service_that_does_not_answer_is_no_success(audited):
    """It says that nothing is known and what to do, looks at all the rest, and ends with an error."""
    errors = [line for line in audited.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith("error: nothing is known of the packages in requirements/serve.txt: ")
    assert "the service 'pypi' does not answer pip-audit (" in errors[0]
    assert errors[0].endswith("try again, or ask another: make audit SERVICE=osv")
    assert audited.returncode != 0


def test_the_rest_is_looked_at_all_the_same(audited):
    """Our code, the bill and the archive are well, and say so."""
    assert re.search(r"ok    model, .*: [\d,]+ lines, bandit finds nothing that is not", audited.stdout)
    assert "ok    model_store/convnet.mar was looked at, not run: its members match the" in audited.stdout


def test_bill_names_what_is_served(bill, archive):
    """The archive by its digest, each package of the lock by its version, and none that only tests need."""
    parts = {part["name"]: part for part in bill["components"]}
    assert parts["convnet"]["type"] == "machine-learning-model"
    assert parts["convnet"]["hashes"] == [{"alg": "SHA-256", "content": sha256(archive)}]
    versions = {name.lower().replace("_", "-"): part.get("version") for name, part in parts.items()}
    lock = (ROOT / "requirements" / "serve.txt").read_text()
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE):
        assert versions[name].split("+")[0] == version
    assert not {"pytest", "ruff", "mypy"} & parts.keys()


def test_bill_names_the_libraries_in_the_jar(bill):
    """Maven's names, and torchserve needs them through its jar."""
    needs = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    [torchserve] = [part["bom-ref"] for part in bill["components"] if part["name"] == "torchserve"]
    assert "model-server.jar" in needs[torchserve]
    assert "pkg:maven/io.netty/netty-codec-http@4.1.53.Final" in needs["model-server.jar"]
    [jar] = [part for part in bill["components"] if part["name"] == "model-server.jar"]
    assert jar["hashes"] == [{"alg": "SHA-256", "content": digest(JAR)}]


def test_packages_of_the_bill_have_licences(bill):
    """As the packages say them."""
    packages = [part for part in bill["components"] if part.get("purl", "").startswith("pkg:pypi/")]
    without = [part["name"] for part in packages if not part.get("licenses")]
    assert len(packages) > 30
    assert without == []


def test_jar_is_the_one_whose_libraries_are_known():
    """Versions that the jar tells itself, and those of TorchServe's build files."""
    assert digest(JAR) == SHA256
    found = {f"{one.group}:{one.name}": one.version for one in libraries(JAR)}
    assert found["io.netty:netty-codec-http"] == "4.1.53.Final"
    assert found["io.grpc:grpc-core"] == "1.50.0"
    assert found["org.codehaus.groovy:groovy"] == "3.0.9"
    assert found["org.yaml:snakeyaml"] == "2.1"
    assert found["org.testng:testng"] is None


def test_versions_are_not_told_of_another_jar(tmp_path):
    """With one byte more it is another jar: what it does not say itself is not known."""
    other = tmp_path / "other.jar"
    other.write_bytes(JAR.read_bytes() + b"x")
    found = {one.name: one.version for one in libraries(other)}
    assert found["netty-codec-http"] == "4.1.53.Final"
    assert found["snakeyaml"] is None


def saying(folder: Path, text: str, code: int) -> Path:
    """Make a program that prints a text and ends, in the place of pip-audit."""
    program = folder / "pip-audit"
    (folder / "said").write_text(text)
    program.write_text(f"#!/bin/sh\ncat {folder}/said\nexit {code}\n")
    program.chmod(0o755)
    return program


def test_flaws_are_named_but_for_the_accepted(tmp_path):
    """Each by its id and where it is mended; accepted is one by any of its names."""
    accepted = Accepted({"CVE-1": "it is not reached", "CVE-0": "it is gone"})
    number, found = flaws(saying(tmp_path, json.dumps(REPORT), 1), Path("a.txt"), "osv", accepted)
    assert number == 3
    assert found == [
        "a.txt pins bad 2.0, which has PYSEC-2, mended in no version",
        "a.txt pins own, which was not looked at: it is on no index",
    ]
    assert accepted.unused() == ["accepted.toml accepts CVE-0, which is not found any more; take it out"]


def test_service_that_finds_nothing_does_not_answer(tmp_path):
    """Every package "not found" is no clean report: pip-audit would end with success."""
    report = {"dependencies": [{"name": name, "skip_reason": "not found"} for name in ("a", "b")]}
    program = saying(tmp_path, json.dumps(report), 0)
    with pytest.raises(NotAsked, match=r"it finds none of the 2 packages\); .* make audit SERVICE=pypi"):
        flaws(program, Path("a.txt"), "osv", Accepted({}))


def test_no_report_is_no_answer(tmp_path):
    """Whatever pip-audit ended by, nothing is known."""
    with pytest.raises(NotAsked, match=r"it ended with 0 and said nothing"):
        flaws(saying(tmp_path, "", 0), Path("a.txt"), "osv", Accepted({}))


@pytest.mark.parametrize(
    ("reasons", "number"),
    [({}, 1), ({"B307": "x"}, 0), ({"B307 {file}": "x"}, 0), ({"B307 other.py": "x"}, 1)],
    ids=["none", "everywhere", "here", "elsewhere"],
)
@pytest.mark.usefixtures("audited")  # it makes the environment
def test_mistake_in_our_code_is_found(tmp_path, reasons, number):
    """By its place, unless its test is accepted, everywhere or in its file."""
    (tmp_path / "bad.py").write_text("def run(text):\n    return eval(text)\n")
    accepted = Accepted({key.format(file=tmp_path / "bad.py"): why for key, why in reasons.items()})
    _, found = findings(TOOLS / "bandit", [tmp_path], accepted)
    assert [sentence.split(",")[0] for sentence in found] == [f"{tmp_path}/bad.py:2: B307"] * number


def test_all_our_code_is_looked_at():
    """Every folder of modules that is served, built or measured with."""
    known = {path.parts[0] for path in (file.relative_to(ROOT) for file in ROOT.glob("[a-z]*/*.py"))}
    assert set(FOLDERS) == known - {"tests"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[code]\nB1 = ""\n', "accepts B1 without a reason"),
        ("[packages]\n", r"cannot read \[code\]"),
        ("[code", r"cannot read \[code\]"),
    ],
    ids=["no-reason", "no-list", "no-toml"],
)
def test_nothing_is_accepted_without_a_reason(tmp_path, text, sentence):
    """The file and the entry are named."""
    (tmp_path / "accepted.toml").write_text(text)
    with pytest.raises(BadList, match=sentence):
        Accepted.of("code", tmp_path / "accepted.toml")
