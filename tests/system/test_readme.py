"""The README and its pages are executed and checked."""

import re
import shlex
import subprocess
import sys
import unicodedata

import pytest

import marctl
from marctl.cli import COMMANDS
from tests.conftest import IMAGES, ROOT, free_port, make
from tests.support.pages import shown

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
RUN_ALONE = ("make predict IMAGE=", "make verify")  # commands that need no server and change nothing


def first_screen() -> dict[str, list[str]]:
    """Return the first block's commands, each with the lines shown below it."""
    block = re.search(r"```console\n(.*?)```", README, re.DOTALL)[1]
    screen: dict[str, list[str]] = {}
    for line in block.splitlines():
        if line.startswith("$ "):
            screen[line.removeprefix("$ ")] = printed = []
        else:
            printed.append(line)
    return screen


def masked(text: str) -> str:
    """Return a text without digests, commits and sizes, which change with every archive."""
    text = re.sub(r"[\d,]+ bytes", "N bytes", text)
    return re.sub(r"[0-9a-f]{40,64}(-dirty)?", "DIGEST", text)


def test_first_screen_is_true(tmp_path):
    """Its commands print what the README shows, but for ports, times, Java and digest."""
    port = free_port()
    archive, serve, curl = first_screen()
    where = {"PORT": str(port), "RUN": str(tmp_path / "run")}
    built = make(*shlex.split(archive)[1:], MAR=str(tmp_path / "convnet.mar"))
    assert masked(built.stdout).splitlines() == [masked(line) for line in first_screen()[archive]]
    try:
        served = make(*shlex.split(serve)[1:], **where)
        assert served.returncode == 0, served.stderr
        asked = curl.replace("8080", str(port))
        answer = subprocess.run(shlex.split(asked), cwd=ROOT, capture_output=True, text=True, check=True)
    finally:
        make("stop", **where)

    def placed(text: str) -> str:
        text = text.replace(str(port), "8080").replace(str(port + 1), "8081")
        text = re.sub(r"ready after [\d.]+ s, on Java \d+ of \w+", "ready", text)
        text = re.sub(r"make stop RUN=\S+", "make stop", text)
        return re.sub(r"logs  \S+logs/", "logs  run/logs/", text)

    printed = served.stdout[served.stdout.index("serving") :].splitlines()
    assert [placed(line) for line in printed] == [placed(line) for line in first_screen()[serve]]
    assert answer.stdout.splitlines() == first_screen()[curl]


def test_promised_commands_are_shown():
    """The README shows the commands that will never change."""
    assert list(first_screen())[:2] == ["make archive", "make serve"]
    image = "curl http://127.0.0.1:8080/predictions/convnet -T "
    for command in (image, "curl http://127.0.0.1:8081/models", "$ make test\n"):
        assert command in README


def test_number_of_tests_is_true():
    """The README has the actual number of tests."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    number = re.search(r"^(\d+) tests collected", listed, re.MULTILINE)[1]
    assert re.search(r"^(\d+) passed in", README, re.MULTILINE)[1] == number


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        pytest.param(command, printed, id=f"{page.name}: {command}")
        for page in PAGES
        for command, printed in shown(page)
        if command.startswith(RUN_ALONE) and printed
    ],
)
def test_commands_print_what_the_pages_say(archive, command, printed):
    """Commands without a server print what the page shows, but for digest and commit."""
    done = make(*shlex.split(command)[1:], NAME=archive.stem)
    assert done.returncode == 0, done.stderr
    assert masked(done.stdout.rstrip("\n")) == masked(printed)


def test_keys_are_made_and_used_as_the_page_says(archive, tmp_path):
    """The block on signing is run line by line, on a copy of the archive."""
    mar = tmp_path / "convnet.mar"
    mar.write_bytes(archive.read_bytes())
    block = re.search(r"```console\n(\$ openssl.*?)```", (DOCS / "archives.md").read_text(), re.DOTALL)[1]
    for line in block.splitlines():
        words = shlex.split(line.removeprefix("$ "))
        if words[0] == "openssl":
            subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
            continue
        own = [re.sub(r"=(\w+\.pem)", rf"={tmp_path}/\1", word) for word in words[1:] if word != "serve"]
        done = make(*own, MAR=str(mar))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "folder"), [("README.md", ROOT), ("docs/clients.md", IMAGES)])
def test_python_examples_run(server, page, folder):
    """The Python examples run against a real server, and print the label first."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    code = code.replace("http://127.0.0.1:8080", server.inference)
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 ")


def test_ci_runs_the_command_of_the_readme():
    """CI runs the same command as a person."""
    assert "\nmake test " in (ROOT / ".ci" / "run").read_text()


def test_every_target_is_described_and_exists():
    """The page of commands has all targets of the Makefile, and no others."""
    makefile = MAKEFILE.replace("\\\n", "")
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()) - {"help"}
    assert set(re.findall(r"`make ([a-z-]+)", (DOCS / "commands.md").read_text())) == targets


def test_every_marctl_command_is_described():
    """The page of commands and the help have the same texts."""
    page = (DOCS / "commands.md").read_text()
    listed = {name: command.help for name, command in COMMANDS.items() if command.help}
    assert dict(re.findall(r"^\| `marctl (\w+)` \| (.*) \|$", page, re.MULTILINE)) == listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_pages_exist(page):
    """No page shows a make target that does not exist."""
    text = page.read_text()
    if page.name == "CHANGELOG.md":  # it also names removed targets
        return
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r"(?:`|^\$ |^)make ([a-z-]+)\b(?!=)", text, re.MULTILINE)) <= targets


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    kept = (
        "".join(c for c in one.lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
        for one in headings
    )
    return {one.replace(" ", "-") for one in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """The files, images and sections that a page links to exist."""
    for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        assert not fragment or fragment in anchors(linked.read_text()), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page):
    """The project files that a page names exist."""
    if page.name == "CHANGELOG.md":
        return
    named = re.findall(
        r"`((?:src|handler|tests|bench|training|deploy|model|docs|cpp)/[\w./-]+)`", page.read_text()
    )
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing


def test_figures_are_the_measured_ones():
    """The accuracy in README, changelog and page is the one that training saved."""
    accuracy = re.search(r'"test_accuracy": ([\d.]+)', (ROOT / "model" / "convnet.json").read_text())[1]
    for page in ("README.md", "CHANGELOG.md", "docs/real-images.md"):
        assert f"{float(accuracy) * 100:.2f} %" in (ROOT / page).read_text()


def test_changelog_begins_with_this_version():
    """The newest section has a date and the version that `marctl --version` prints."""
    newest = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == marctl.__version__
