"""The commands that a page in docs/ shows, with the output that it shows for them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT
from tests.support.waiting import PATIENCE

NUMBER = re.compile(r"-?\d+\.\d+(e-?\d+)?")
TOP_K = re.compile(r'"top_k":\[.*?\]')
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


def shown(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each command in the page's console blocks, and the lines below it."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for command in block.removeprefix("$ ").split("\n$ "):
            line, _, printed = command.partition("\n")
            yield line, printed.rstrip("\n")


def run(command: str) -> str:
    """Run a command as a user would, in the checkout; return what it prints."""
    words = ["bash", "-c", command.replace("curl ", "curl --silent ", 1)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.rstrip("\n")


def masked(text: str) -> str:
    """Mask what changes with the weights, the commit or the machine.

    That is fractions, digests, and the labels after the first.
    """
    counted = TOP_K.sub(lambda found: f'"top_k": {found[0].count("label")}', text)
    return DIGEST.sub("DIGEST", NUMBER.sub("NUMBER", counted))
