"""What measures: it says what it lacks, counts all processes of a server, and writes where it should."""

import subprocess
import sys
import time

import psutil
import pytest

from arms import OTHER, OTHER_OURS, own_arms
from conftest import ROOT
from load_pictures import load_pictures
from marked import replace_marked
from other_servers import PROGRAMS, other_arms
from pictures import opened
from processes import Family
from serving_report import KINDS

PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}]); time.sleep(60)"
# Computes for a while, then waits.
CHILD = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass\ntime.sleep(60)"


def test_missing_load_generator_is_named(archive):
    """Without wrk nothing is started, and the sentence says how to come by it."""
    roots = ("model", "handler", "archive", "servers", "exports", "bench")
    environ = {"PYTHONPATH": ":".join(str(ROOT / root) for root in roots), "PATH": "/nowhere"}
    command = [sys.executable, str(ROOT / "bench" / "serving.py"), str(archive)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: there is no wrk to make load with; Debian, Ubuntu: apt-get install wrk\n"


def test_cost_is_that_of_all_processes():
    """A child's time and memory count; ending the family ends it, too."""
    with subprocess.Popen([sys.executable, "-c", PARENT.format(CHILD)]) as parent:
        family = Family(parent.pid)
        end = time.monotonic() + 30
        while family.cost().seconds < 0.5 and time.monotonic() < end:
            time.sleep(0.05)
        cost, members = family.cost(), family.members()
        family.end()
    assert len(members) == 2
    assert cost.seconds >= 0.5
    assert cost.memory > cost.largest > 1
    assert not any(psutil.pid_exists(member.pid) for member in members)


def test_every_program_and_kind_is_known(archive):
    """Each server has its program, and a place in the tables."""
    arms = [*own_arms(archive), *other_arms(archive)]
    assert {arm.kind for arm in arms} == set(KINDS)
    assert len({arm.name for arm in arms}) == len(arms)
    lent = {arm.name.removesuffix(", our handler") for arm in arms if arm.kind == OTHER_OURS}
    assert lent <= {arm.name for arm in arms if arm.kind == OTHER}
    for program in PROGRAMS.glob("*.py"):
        compile(program.read_text(), program.name, "exec")


def test_pictures_are_what_the_tables_call_them():
    """Sizes, modes and formats are those of the names."""
    small, web, photo = (opened(body) for body in load_pictures().values())
    assert (small.size, small.mode, small.format) == ((28, 28), "L", "PNG")
    assert (web.size, web.mode, web.format) == ((250, 250), "RGBA", "PNG")
    assert (photo.width * photo.height, photo.mode, photo.format) == (12_000_000, "RGB", "JPEG")


def test_table_takes_the_place_of_the_last_one(tmp_path):
    """What stands around the marks stays; a page without them is not touched."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter\n")
    replace_marked(page, "a", "new\nlines")
    assert page.read_text() == "before\n<!-- a -->\nnew\nlines\n<!-- /a -->\nafter\n"
    with pytest.raises(ValueError, match="has no <!-- b -->"):
        replace_marked(page, "b", "new")
