"""make audit fails on findings and on services it cannot reach, and lists what is served."""

import json
import re
import subprocess
from importlib.metadata import distribution
from pathlib import Path

import pytest

from marctl.audit.accepted import Accepted
from marctl.audit.jar import digest
from marctl.audit.own_code import FOLDERS, findings
from marctl.serve.served_copies import sha256
from tests.conftest import ROOT, make

JAR = Path(str(distribution("torchserve").locate_file("ts/frontend/model-server.jar")))
TOOLS = ROOT / ".venv-audit" / "bin"


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The output of make audit without a network."""
    nowhere, cache = "http://127.0.0.1:1", str(tmp_path_factory.mktemp("cache"))
    variables = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), nowhere)
    # A cached response must not count as a response now.
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
    """It says that the result is unknown and what to do, runs the other checks, and fails."""
    errors = [line for line in audited.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith("error: cannot check the packages in requirements/serve.txt: ")
    assert "the service 'pypi' does not answer pip-audit (" in errors[0]
    assert errors[0].endswith("try again, or use another service: make audit SERVICE=osv")
    assert audited.returncode != 0


def test_the_rest_is_looked_at_all_the_same(audited):
    """Our code, the bill of materials and the archive are still checked and reported as good."""
    assert re.search(r"ok    model, .*: [\d,]+ lines, bandit finds nothing, apart from", audited.stdout)
    assert "ok    model_store/convnet.mar was examined, not run: its members match the" in audited.stdout


def test_bill_names_what_is_served(bill, archive):
    """It has the archive's digest and each locked package's version, but no package for tests alone."""
    parts = {part["name"]: part for part in bill["components"]}
    assert parts["convnet"]["type"] == "machine-learning-model"
    assert parts["convnet"]["hashes"] == [{"alg": "SHA-256", "content": sha256(archive)}]
    versions = {name.lower().replace("_", "-"): part.get("version") for name, part in parts.items()}
    lock = (ROOT / "requirements" / "serve.txt").read_text()
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE):
        assert versions[name].split("+")[0] == version
    assert not {"pytest", "ruff", "mypy"} & parts.keys()


def test_bill_names_the_libraries_in_the_jar(bill):
    """They have their Maven names, and torchserve depends on them through its jar."""
    needs = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    [torchserve] = [part["bom-ref"] for part in bill["components"] if part["name"] == "torchserve"]
    assert "model-server.jar" in needs[torchserve]
    assert "pkg:maven/io.netty/netty-codec-http@4.1.53.Final" in needs["model-server.jar"]
    [jar] = [part for part in bill["components"] if part["name"] == "model-server.jar"]
    assert jar["hashes"] == [{"alg": "SHA-256", "content": digest(JAR)}]


def test_packages_of_the_bill_have_licences(bill):
    """Licences are those that the packages state; NVIDIA's list for its own packages has none."""
    packages = [part for part in bill["components"] if part.get("purl", "").startswith("pkg:pypi/")]
    without = [part["name"] for part in packages if not part.get("licenses")]
    assert len(packages) > 30
    assert set(without) <= {"cuda-toolkit"}


@pytest.mark.parametrize(
    ("reasons", "number"),
    [({}, 1), ({"B307": "x"}, 0), ({"B307 {file}": "x"}, 0), ({"B307 other.py": "x"}, 1)],
    ids=["none", "everywhere", "here", "elsewhere"],
)
@pytest.mark.usefixtures("audited")  # it creates the environment
def test_mistake_in_our_code_is_found(tmp_path, reasons, number):
    """It is reported by location, unless its rule is accepted everywhere or in that file."""
    (tmp_path / "bad.py").write_text("def run(text):\n    return eval(text)\n")
    accepted = Accepted({key.format(file=tmp_path / "bad.py"): why for key, why in reasons.items()})
    _, found = findings(TOOLS / "bandit", [tmp_path], accepted)
    assert [sentence.split(",")[0] for sentence in found] == [f"{tmp_path}/bad.py:2: B307"] * number


def test_all_our_code_is_looked_at():
    """Every folder of modules used to serve, build or measure is scanned."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(FOLDERS) == {name.partition("/")[0] for name in names} - {"tests"}
