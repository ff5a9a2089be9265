"""The README's commands are run, not believed."""

import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from conftest import ROOT, free_port, make

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def first_screen() -> dict[str, list[str]]:
    """Return the first block's commands, each with the lines that it is said to print."""
    block = re.search(r"```console\n(.*?)```", README, re.DOTALL)[1]
    screen: dict[str, list[str]] = {}
    for line in block.splitlines():
        if line.startswith("$ "):
            screen[line.removeprefix("$ ")] = printed = []
        else:
            printed.append(line)
    return screen


def test_first_screen_is_true(tmp_path):
    """Make serve prints what the README says, but for its ports, time and Java; the curl line answers."""
    port = free_port()
    serve, curl, test = first_screen()
    where = {"PORT": str(port), "RUN": str(tmp_path / "run")}
    try:
        served = make(*shlex.split(serve)[1:], **where)
        assert served.returncode == 0, served.stderr
        asked = curl.replace("8080", str(port))
        answer = subprocess.run(shlex.split(asked), cwd=ROOT, capture_output=True, text=True, check=True)
    finally:
        make("stop", **where)

    def masked(text: str) -> str:
        text = text.replace(str(port), "8080").replace(str(port + 1), "8081")
        text = re.sub(r"ready after [\d.]+ s, on Java \d+ of \w+", "ready", text)
        text = re.sub(r"make stop RUN=\S+", "make stop", text)
        return re.sub(r"logs  \S+logs/", "logs  run/logs/", text)

    printed = served.stdout[served.stdout.index("serving") :].splitlines()
    assert [masked(line) for line in printed] == [masked(line) for line in first_screen()[serve]]
    assert answer.stdout.splitlines() == first_screen()[curl]
    assert test == "make test"


def test_number_of_tests_is_true():
    """As many tests as the README says are there to pass."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    number = re.search(r"^(\d+) tests collected", listed, re.MULTILINE)[1]
    assert re.search(r"^(\d+) passed in", README, re.MULTILINE)[1] == number


def test_verify_prints_what_the_readme_says():
    """Make verify prints the README's lines, but for digest and commit."""
    block = re.search(r"\$ make verify\n(.*?)```", README, re.DOTALL)[1]
    printed = make("verify").stdout

    def masked(text: str) -> str:
        return re.sub(r"[0-9a-f]{40,64}(-dirty)?", "DIGEST", text)

    assert masked(printed) == masked(block)


def test_keys_are_made_and_used_as_the_readme_says(archive, tmp_path):
    """The block on signing, line by line; the archive is a copy."""
    mar = tmp_path / "convnet.mar"
    mar.write_bytes(archive.read_bytes())
    block = re.search(r"```console\n(\$ openssl.*?)```", README, re.DOTALL)[1]
    for line in block.splitlines():
        words = shlex.split(line.removeprefix("$ "))
        if words[0] == "openssl":
            subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
            continue
        own = [re.sub(r"=(\w+\.pem)", rf"={tmp_path}/\1", word) for word in words[1:] if word != "serve"]
        done = make(*own, MAR=str(mar))
        assert done.returncode == 0, done.stderr


def test_ci_runs_the_command_of_the_readme():
    """What CI runs is what a person runs."""
    assert "\nmake test " in (ROOT / ".ci" / "run").read_text()


def test_every_target_is_described_and_exists():
    """The README speaks of all targets of the Makefile, and of no others."""
    makefile = MAKEFILE.replace("\\\n", "")
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()) - {"help"}
    assert set(re.findall(r"`make ([a-z-]+)", README)) == targets


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    """What the README links to, and the pictures it shows, are here."""
    assert (ROOT / link).exists()


def test_lock_has_the_versions_of_the_project():
    """Each package that pyproject.toml pins stands in the locks with that version."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    own = ("serve", "parquet", "onnx", "flask", "client", "explain", "uv", "audit")
    locks = {"train": "dev", "test": "dev", **{group: group for group in own}}
    for group, lock in locks.items():
        locked = (ROOT / "requirements" / f"{lock}.txt").read_text()
        pinned = {re.sub(r"\[.*\]", "", pin) for pin in groups[group]}  # a lock has an extra's packages
        assert pinned <= set(re.findall(r"^\S+", locked, re.MULTILINE))


def test_figures_are_the_measured_ones():
    """The accuracy in README and changelog is the one that training saved."""
    accuracy = re.search(r'"test_accuracy": ([\d.]+)', (ROOT / "model" / "convnet.json").read_text())[1]
    assert f"{float(accuracy) * 100:.2f} %" in README
    assert f"{float(accuracy) * 100:.2f} %" in (ROOT / "CHANGELOG.md").read_text()
