"""A server that cannot start for lack of space, a short path or another reason says so at once."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.servers.limits import fill, small_disk
from marctl.serve.processes import Process, processes
from marctl.serve.scratch import LONGEST_SOCKET, SOCKET_PATH
from marctl.serve.torchserve.readiness import NO_WORD, WORKER, NotReady, _check_start
from tests.conftest import ROOT, free_port, make
from tests.support.flask_process import refused

WAITED = "no worker was ready"


@pytest.fixture
def short():
    """A folder whose path leaves room for a worker's socket, unlike the path of a test's own folder."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


def long_folder(tmp_path, length: int):
    """Make a folder whose path has this many bytes."""
    folder = tmp_path / ("d" * (length - len(str(tmp_path)) - 1))
    folder.mkdir()
    return folder


@pytest.mark.parametrize("target", ["serve", "up"])
@pytest.mark.parametrize("length", [160, SOCKET_PATH - len(LONGEST_SOCKET) + 1])
def test_long_tmpdir_is_refused(tmp_path, target, length):
    """A Unix socket's path would not fit: the error comes before the start, with the remedy."""
    folder = long_folder(tmp_path, max(length, len(str(tmp_path)) + 2))
    ports = {"PORT": str(free_port()), "DOOR": str(free_port())}
    done = make(target, RUN=str(tmp_path / "run"), TMPDIR=str(folder), **ports)
    assert done.returncode != 0
    assert f"error: TMPDIR, {folder}, is too long: a worker's socket would have a path of" in done.stderr
    assert "set TMPDIR to a shorter path" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "logs").exists()


def room(folder, size: int) -> None:
    """Fill a disk until this many bytes are free."""
    full = fill(folder)
    os.truncate(full, full.stat().st_size - size)


@pytest.mark.root
@pytest.mark.parametrize("target", ["serve", "up"])
def test_full_tmpdir_is_refused(short, tmp_path, target):
    """The error has the space that the archive needs and the space that is left."""
    with small_disk(short / "disk") as folder:
        room(folder, 2**20)
        ports = {"PORT": str(free_port()), "DOOR": str(free_port())}
        done = make(target, RUN=str(tmp_path / "run"), TMPDIR=str(folder), **ports)
    assert done.returncode != 0
    assert f"error: {folder} has room for " in done.stderr
    assert "free space there, or set TMPDIR" in done.stderr


@pytest.mark.root
def test_flask_on_a_full_disk_says_so(archive, tmp_path, monkeypatch):
    """Its copy of the archive does not fit."""
    with small_disk(tmp_path / "disk") as folder:
        room(folder, 2**20)
        monkeypatch.setenv("TMPDIR", str(folder))
        line = refused(archive)
        assert [path.name for path in folder.iterdir()] == ["full"]
    assert line.startswith(f"error: cannot copy {archive} into {folder}")
    assert line.endswith("No space left on device; free space there")


@pytest.mark.root
def test_flask_without_room_to_unpack_says_so(archive, tmp_path, monkeypatch):
    """The copy fits, but the unpacked files do not."""
    with small_disk(tmp_path / "disk") as folder:
        room(folder, 2 * archive.stat().st_size)
        monkeypatch.setenv("TMPDIR", str(folder))
        line = refused(archive)
    assert "has room for" in line
    assert "free space there, or set TMPDIR" in line


@pytest.mark.root
def test_archive_that_cannot_be_unpacked_ends_the_wait(short, tmp_path):
    """The disk has space but no free inode: TorchServe's own error is printed, with the remedy."""
    with small_disk(short / "disk", "nr_inodes=20") as folder:
        done = make("serve", RUN=str(tmp_path / "run"), PORT=str(free_port()), TMPDIR=str(folder))
    assert done.returncode != 0
    assert "error: TorchServe could not load the archive: " in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    # Java has different messages for a folder and a file; either can be the one too many.
    assert "Cannot create directory" in line or "No space left on device" in line
    assert "; free space there, or set TMPDIR" in line
    assert WAITED not in done.stderr
    assert make("status", RUN=str(tmp_path / "run")).stdout.startswith("not running")


@pytest.mark.parametrize("target", ["serve", "up"])
def test_worker_that_dies_before_it_listens_ends_the_wait(tmp_path, target):
    """Its own error is the first line, followed by its traceback."""
    metrics, config = tmp_path / "metrics.yaml", tmp_path / "mine.properties"
    metrics.write_text("ts_metrics: {}\n")
    config.write_text((ROOT / "config.properties").read_text() + f"metrics_config={metrics}\n")
    options = {"PORT": str(free_port()), "DOOR": str(free_port()), "PROPERTIES": str(config)}
    done = make(target, RUN=str(tmp_path / "run"), **options)
    assert done.returncode != 0
    assert "error: a worker died while it started: KeyError: 'model_metrics'\nTraceback" in done.stderr
    assert WAITED not in done.stderr


@pytest.mark.root
def test_full_disk_for_logs_and_settings_is_said(tmp_path):
    """If RUN is on a full disk, there is a sentence and no traceback."""
    with small_disk(tmp_path / "disk") as disk:
        run = disk / "run"
        run.mkdir()
        room(disk, 0)
        done = make("serve", RUN=str(run), PORT=str(free_port()))
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
    assert "free space there" in done.stderr
    assert "Traceback" not in done.stderr


@contextlib.contextmanager
def read_only(folder):
    """Mount a folder from a disk that nobody can write to."""
    with small_disk(folder):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder


def check_refused(done, run, reason: str) -> None:
    """Assert one sentence with the folder, the reason and the remedy."""
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    named = f"error: RUN={re.escape(str(run))} cannot be used"
    assert re.fullmatch(f"{named}: {reason}[^;]*; name another folder: RUN=folder", line)
    assert done.returncode != 0


@pytest.mark.root
@pytest.mark.parametrize("target", ["serve", "up"])
def test_folder_that_cannot_be_written_is_named(tmp_path, target):
    """A start fails with one sentence; nothing runs there, and make stop needs no space."""
    with read_only(tmp_path / "run") as run:
        done = make(target, RUN=str(run), PORT=str(free_port()), DOOR=str(free_port()))
        check_refused(done, run, "Read-only file system")
        stopped, status = make("stop", RUN=str(run)), make("status", RUN=str(run))
    assert (stopped.returncode, stopped.stdout) == (0, f"nothing to stop: no server runs in {run}\n")
    assert status.stdout.startswith("not running")


@pytest.mark.root
def test_supervisor_is_ended_where_nobody_could_find_it(tmp_path):
    """On a full disk its process id cannot be recorded, so it is ended again."""
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        run = disk / "run"
        run.mkdir()
        fill(disk)
        done = make("up", RUN=str(run), PORT=str(free_port()), DOOR=str(free_port()))
        check_refused(done, run, "No space left on device")
        assert not [one for one in processes() if str(run) in " ".join(one.command)]


@pytest.mark.parametrize("target", ["serve", "up", "stop", "status"])
def test_run_that_is_a_file_is_named(tmp_path, target):
    """The file is not changed."""
    run = tmp_path / "run"
    run.write_text("mine")
    done = make(target, RUN=str(run), PORT=str(free_port()), DOOR=str(free_port()))
    check_refused(done, run, "it is not a folder")
    assert run.read_text() == "mine"


def test_stop_where_nothing_runs_leaves_no_trace(tmp_path):
    """It takes no lock: an empty folder stays empty."""
    assert make("stop", RUN=str(tmp_path)).stdout == f"nothing to stop: no server runs in {tmp_path}\n"
    assert list(tmp_path.iterdir()) == []


def test_worker_whose_end_no_log_tells_of_ends_the_wait(tmp_path):
    """On a full disk TorchServe logs nothing, so its worker processes are watched, too."""
    me, workers = Process.of(os.getpid()), {}
    command = [sys.executable, "-c", "import time; time.sleep(600)", WORKER]
    with subprocess.Popen(command) as worker:
        while not workers:
            _check_start(me, workers, tmp_path)
        worker.kill()
        worker.wait()
        with pytest.raises(NotReady, match=f"^a worker died while it started: {re.escape(NO_WORD)}$"):
            _check_start(me, workers, tmp_path)
