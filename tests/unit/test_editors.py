"""The settings for editors and commit hooks match pyproject.toml and the files here."""

import configparser
import re
import subprocess
import sys
import tomllib

from tests.conftest import ROOT

LINE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()


def test_editors_and_ruff_have_one_line_length():
    """An editor breaks lines where ruff does."""
    rules = configparser.ConfigParser()
    rules.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    assert rules["*.py"]["max_line_length"] == str(LINE)


def test_files_end_and_break_as_the_editors_are_told():
    """Files are UTF-8, every line ends in a line feed, the last one too, and none has trailing spaces."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    files = [ROOT / name for name in names if (ROOT / name).is_file()]
    texts = {file: file.read_bytes() for file in files if b"\0" not in file.read_bytes()}
    assert len(texts) > 200
    wrong = [
        file
        for file, text in texts.items()
        if text and (not text.endswith(b"\n") or re.search(rb"[ \t\r]$", text, re.MULTILINE))
    ]
    assert wrong == []
    for text in texts.values():
        text.decode("utf-8")


def test_hooks_run_the_environments_ruff():
    """No second ruff is downloaded, and its only settings are those in pyproject.toml."""
    assert re.findall(r"entry: (\S+ \S+)", HOOKS) == [".venv/bin/ruff check", ".venv/bin/ruff format"]
    assert set(re.findall(r"repo: (\S+)", HOOKS)) == {"local"}


def test_hooks_pass_on_every_file(checkout_in, tmp_path):
    """With the hooks on, the files here can be committed; a file that ruff would reformat is refused."""
    copy = checkout_in(tmp_path / "copy")
    for command in (["init", "-q", "."], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=copy, check=True)
    hooks = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    done = subprocess.run(hooks, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with (copy / "model" / "convnet.py").open("a") as file:
        file.write("x = ( 1 )\n")
    done = subprocess.run(hooks, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "1 file reformatted" in done.stdout
