"""The commands on the pages about answers and platforms print what the pages show."""

import pytest

from tests.conftest import ROOT
from tests.support.pages import masked, run, shown

PAGES = ("answers.md", "platforms.md")


@pytest.mark.parametrize("name", PAGES)
def test_commands_print_what_the_page_says(everywhere, name):
    """Each curl line, run against real servers, prints the same but for fractions and digests."""
    door = everywhere.get("reverse proxy", everywhere["Flask"])
    asked = 0
    for command, printed in shown(ROOT / "docs" / name):
        if not command.startswith("curl ") or "/explanations" in command:  # they make a worker load torch
            continue
        address = command.replace("127.0.0.1:8080", everywhere["TorchServe"].removeprefix("http://"))
        address = address.replace("127.0.0.1:8000", door.removeprefix("http://"))
        assert masked(run(address)) == masked(printed), command
        asked += 1
    assert asked > 5
