"""The benchmarks report missing programs, count all processes of a server, and update the right tables."""

import re
import subprocess
import sys

import psutil
import pytest

from bench.load.images import load_images, opened
from bench.report.markdown import replace_marked
from bench.report.serving import KINDS
from bench.servers.candidates import OTHER, OTHER_OURS, own_candidates
from bench.servers.other_servers import PROGRAMS, SERVERS, other_candidates
from bench.servers.processes import Family
from tests.conftest import ROOT
from tests.support.waiting import wait_until

PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}]); time.sleep(60)"
# Computes for a while, then waits.
CHILD = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass\ntime.sleep(60)"


@pytest.mark.parametrize(
    ("program", "of"), [("serving", "model_store/convnet.mar"), ("compare", ".")], ids=["serving", "compare"]
)
def test_missing_load_generator_is_named(program, of):
    """Without wrk nothing is started, and the error says how to install it."""
    command = [sys.executable, "-m", f"bench.{program}", of]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: wrk, the load generator, is missing; Debian, Ubuntu: apt-get install wrk\n"


def test_cost_is_that_of_all_processes():
    """A child's time and memory count; ending the family ends the child too."""
    with subprocess.Popen([sys.executable, "-c", PARENT.format(CHILD)]) as parent:
        family = Family(parent.pid)
        wait_until(lambda: family.cost().seconds >= 0.5)
        cost, members = family.cost(), family.members()
        family.end()
    assert len(members) == 2
    assert cost.seconds >= 0.5
    assert cost.memory > cost.largest > 1
    assert not any(psutil.pid_exists(member.pid) for member in members)


def test_every_program_and_kind_is_known(archive):
    """Each server has its program and its place in the tables."""
    servers = [*own_candidates(archive), *other_candidates(archive)]
    assert {server.kind for server in servers} == set(KINDS)
    assert len({server.name for server in servers}) == len(servers)
    lent = {server.name.removesuffix(", our handler") for server in servers if server.kind == OTHER_OURS}
    assert lent <= {server.name for server in servers if server.kind == OTHER}
    words = " ".join(word for server in SERVERS for word in server.command)
    programs = {path.stem for path in (ROOT / PROGRAMS.replace(".", "/")).glob("[a-z]*.py")}
    assert programs - {"classifier", "convnet"} == set(re.findall(rf"{PROGRAMS}\.(\w+)", words))


def test_images_are_what_the_tables_call_them():
    """Sizes, modes and formats match the names."""
    small, web, photo = (opened(body) for body in load_images().values())
    assert (small.size, small.mode, small.format) == ((28, 28), "L", "PNG")
    assert (web.size, web.mode, web.format) == ((250, 250), "RGBA", "PNG")
    assert (photo.width * photo.height, photo.mode, photo.format) == (12_000_000, "RGB", "JPEG")


def test_table_takes_the_place_of_the_last_one(tmp_path):
    """The text around the marks is kept; a page without marks is not changed."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter\n")
    replace_marked(page, "a", "new\nlines")
    assert page.read_text() == "before\n<!-- a -->\nnew\nlines\n<!-- /a -->\nafter\n"
    with pytest.raises(ValueError, match="has no <!-- b -->"):
        replace_marked(page, "b", "new")
