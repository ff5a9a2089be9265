"""The wheel contains everything, and does what the checkout does."""

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import requests

from marctl.records import digest
from tests.conftest import DIGITS, ROOT, free_port


def run(*command, cwd=ROOT, **options):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)


def pip(*arguments):
    done = run(sys.executable, "-m", "pip", "--quiet", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT))
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of an environment with the wheel and this environment's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    [packages] = folder.glob("lib/python*/site-packages")
    # Python reads no .pth in a folder that was added by a .pth, so the checkout's is not read either.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "others.pth").write_text("\n".join(others))
    return python


def known_files():
    """The files below src/ and handler/ that git tracks or would track, relative to those folders."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src", "handler"]
    files = [file for file in run(*listed).stdout.splitlines() if (ROOT / file).is_file()]
    return {file.partition("/")[2] for file in files}


def test_wheel_has_every_file(wheel):
    """It has the modules and the files they read (settings, page, types), and nothing else."""
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert names == known_files() | {"marctl/serve/config.properties"}
    assert {
        "marctl/py.typed",
        "classifier/py.typed",
        "convnet_handler.py",
        "marctl/serve/front/nginx.conf",
    } <= names


def test_version_stands_in_one_place(wheel):
    """The wheel has the version of the package, which is in the changelog."""
    version = re.search(
        r'^__version__ = "(.*)"$', (ROOT / "src/marctl/__init__.py").read_text(), re.MULTILINE
    )[1]
    assert wheel.name == f"marctl-{version}-py3-none-any.whl"
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_installed_tool_runs_anywhere(installed, tmp_path, archive):
    """In a folder without the checkout, the installed code is what runs."""
    marctl = installed.with_name("marctl")
    where = "import marctl, classifier; print(marctl.__file__, classifier.__file__)"
    assert run(installed, "-P", "-c", where, cwd=tmp_path).stdout.count(str(installed.parents[1])) == 2
    helped = run(marctl, "--help", cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "\n    archive " in helped.stdout
    done = run(marctl, "verify", archive, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "was examined, not run: its members match the records inside it" in done.stdout


def test_installed_tool_builds_the_same_archive(installed, checkout_in, tmp_path):
    """The wheel builds the same archive as the checkout, byte for byte."""
    copy = checkout_in(tmp_path / "copy")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q", "."], ["add", "model", "tests"], [*identity, "commit", "-qm", "all"]):
        assert run("git", *command, cwd=copy).returncode == 0
    for python, name in ((sys.executable, "checkout.mar"), (installed, "wheel.mar")):
        done = run(python, "-P", "-m", "marctl", "archive", "--mar", tmp_path / name, cwd=copy)
        assert (done.returncode, done.stderr) == (0, "")
    assert digest(tmp_path / "wheel.mar") == digest(tmp_path / "checkout.mar")


def test_installed_tool_serves_anywhere(installed, tmp_path, archive):
    """It uses the settings in the wheel."""
    marctl, port = installed.with_name("marctl"), free_port()
    done = run(marctl, "serve", "--port", str(port), archive, cwd=tmp_path)
    try:
        assert (done.returncode, done.stderr) == (0, "")
        asked = requests.put(f"http://127.0.0.1:{port}/predictions/convnet", data=DIGITS["2"], timeout=60)
        assert asked.text == "2"
    finally:
        assert run(marctl, "stop", cwd=tmp_path).returncode == 0
