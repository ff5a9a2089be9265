"""One TorchServe: its run folder, its processes, and its state file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marctl.errors import UserError
from marctl.serve import state_file
from marctl.serve.processes import Process, boot, end, living, processes
from marctl.serve.torchserve import patches, tokens
from marctl.serve.torchserve.java import Java
from marctl.serve.torchserve.patches import greedy_batches
from marctl.serve.torchserve.settings import Settings

# Seconds for TorchServe to end by itself after SIGTERM before it is killed.
STOP_GRACE = 20.0
# Searches for remaining processes: one that ends may have started another in the meantime.
ROUNDS = 5
WORKER_ENVIRONMENT = {
    # One compute thread per worker: two workers with two threads each compete for two cores.
    "OMP_NUM_THREADS": "1",
    # ONNX Runtime sends telemetry to its makers, from its import on, unless this turns it off.
    "ORT_DISABLE_TELEMETRY": "1",
    # Bytes of memory to keep for the next image. By default glibc returns the memory after each image, and
    # the kernel zeroes all its pages again: a third of the time for a small image.
    "MALLOC_MMAP_THRESHOLD_": str(2**23),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}
# Workers answer /explanations only if this is set; handler/classifier/explain.py reads it.
EXPLAIN = "EXPLAIN"
# Variables that a worker does not inherit: they have no use there, and would run code from outside the
# archive and the environment, or load it differently.
NOT_INHERITED = frozenset({
    # It would override the given settings.
    "TS_CONFIG_FILE",
    # With the first, torch.load runs code in any pickle; with the second in none, even if a handler asks.
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD",
    # A different standard library, the user's own packages, and bytecode from another place.
    "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONEXECUTABLE",
    # Extra code that Python runs at start, at exit, and at a leftover breakpoint().
    "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT",
    # The same modules without their asserts, or found under names in another case.
    "PYTHONOPTIMIZE", "PYTHONCASEOK",
    # Launchers of several processes number them with these; TorchServe's worker adds the number to its
    # socket's name, and TorchServe then does not find the socket.
    "LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    # Set by the start options, not inherited.
    EXPLAIN,
})  # fmt: skip
# The prefix of a server's folder for temporary files, and the variable that names the folder.
SCRATCH, TEMPORARY = "torchserve-", "TMPDIR"
STATE = "server.json"
LOG = "ts_log.log"  # TorchServe's own log, in the folder of logs
# The state files of make serve and of make up.
STATES = (STATE, "keeper.json")
# A file that marks a folder as ours: it holds the run folder's inode number, which a copy does not match.
OWNER = ".run-folder"
LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
METRICS = Path(__file__).with_name("metrics.yaml")
# Its only file, sitecustomize.py, runs first in every worker.
WORKER_START = Path(__file__).resolve().parent / "worker"


@dataclass(frozen=True)
class Served:
    """An archive that is served: the model's name and version, its file and the file's SHA-256.

    If there is a private copy, that is the file loaded.
    """

    model: str
    version: str
    archive: str  # the path as given
    sha256: str
    copy: str = ""  # the checked copy that is loaded; "": the archive itself
    sealed: bool = True  # whether it has golden answers and digests, which were checked

    @property
    def file(self) -> Path:
        """The file that is loaded."""
        return Path(self.copy or self.archive)


@dataclass(frozen=True)
class Running:
    """A started TorchServe: its Java process, its addresses and what it serves."""

    pid: int
    started: int  # the process's start, in clock ticks since boot: a PID alone may have been reused
    boot: str  # the ID of that boot
    scratch: str  # its TMPDIR: sockets, unpacked models
    inference: str
    management: str
    served: list[Served]
    keys: str | None = None  # the file of its tokens; None if tokens are off

    @property
    def is_sane(self) -> bool:
        """Whether the fields that identify processes have the right types."""
        numbers = isinstance(self.pid, int) and isinstance(self.started, int)
        return numbers and isinstance(self.boot, str) and isinstance(self.scratch, str)

    def authorization(self, kind: str) -> dict[str, str]:
        """Return the authorization header with a token of a kind; empty if tokens are off.

        Raises what `KeyFile.token` raises.
        """
        return {} if self.keys is None else self.key_file.header(kind)

    @property
    def key_file(self) -> tokens.KeyFile:
        """The file of its tokens. Raises UserError if tokens are off."""
        if self.keys is None:
            raise UserError("this server does not use tokens")
        return tokens.KeyFile(Path(self.keys), self.management)


class Instance:
    """The run folder of one TorchServe: its settings, its logs and its state file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.logs = self.folder / "logs"
        self.console = self.logs / "console.log"
        self._logs_before = self.folder / "logs-before"
        # Java starts here and looks here first for classes, so nothing else may be in this folder.
        self.home = self.folder / "java"
        self._state = self.folder / STATE
        self._started: Running | None = None  # by this process: the state file may get deleted

    @property
    def is_foreign(self) -> bool:
        """Whether the folder holds foreign files: a start could replace some, and run others."""
        if not self.folder.is_dir():
            return False
        has_others = any(not _is_nothing(entry) for entry in self.folder.iterdir())
        # The mark is looked for last: another start may just have written it, and then its files.
        return has_others and not is_of(self.folder, self.folder)

    def claim(self) -> None:
        """Create the folder and mark it as a server's. Raises UserError if it holds foreign files."""
        if self.is_foreign:
            raise UserError(
                f"{self.folder} holds files that no server put there; "
                "set RUN to an empty or a new folder, or empty this one"
            )
        with contextlib.suppress(OSError):  # a later write fails with a better message
            self.folder.mkdir(parents=True, exist_ok=True)
            own(self.folder, self.folder)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Make a second start in the same folder wait until this one is done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def running(self) -> Running | None:
        """Return the TorchServe that runs here, None if there is none."""
        state = self._read() or self._started
        if state is None or process_of(state) is None:
            return None
        if not self._state.exists():
            with contextlib.suppress(OSError):  # the disk is full, or the folder is gone too
                self._write(state)
        return state

    def family(self) -> list[Process]:
        """Return this folder's TorchServe processes, with or without a state file."""
        state = self._read() or self._started
        java = process_of(state) if state is not None else None
        others = (one for one in processes() if java is None or one.pid != java.pid)
        return [*([java] if java else []), *(one for one in others if self._is_mine(one, state))]

    def start(
        self,
        settings: Settings,
        java: Java,
        served: list[Served],
        log_config: Path | None = None,
        *,
        explain: bool = False,
    ) -> Running:
        """Start TorchServe with archives from one folder, without waiting until it is ready.

        With a log configuration it writes to this process's output, otherwise to a file.
        Raises UserError if its process ends at once.
        """
        if names := patches.unknown():
            raise UserError(
                f"{patches.UNPATCHED}={','.join(names)} is not known; "
                f"use {', '.join(patches.NAMES[:-1])} or {patches.NAMES[-1]}"
            )
        shutil.rmtree(self._logs_before, ignore_errors=True)
        if self.logs.exists():  # if the previous server died, they show why
            self.logs.rename(self._logs_before)
        self._forget()
        self.logs.mkdir(parents=True)
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        if patches.is_wanted(patches.GREEDY_BATCHES):
            greedy_batches.install(self.home)
        keys = str(tokens.prepare(self.home)) if settings.tokens else None
        config = self.folder / "config.properties"
        # A copy, by a bare name: properties files are Latin-1, and a checkout's path may be anything.
        # TorchServe uses the last of two equal keys, so a metrics_config in the settings wins.
        shutil.copyfile(METRICS, self.home / METRICS.name)
        config.write_text(f"metrics_config={METRICS.name}\n{settings.text}", encoding="utf-8")
        # In the system's temporary folder, because it holds the workers' sockets: the path of a Unix socket
        # is limited to 107 bytes, which a deep checkout exceeds.
        scratch = tempfile.mkdtemp(prefix=SCRATCH)
        own(Path(scratch), self.folder)
        command = [
            *(sys.executable, "-P", "-m", "ts.model_server", "--start", "--ncs"),
            *("--ts-config", str(config)),
            *("--model-store", str(served[0].file.resolve().parent)),
            *("--models", *(f"{one.model}={one.file.name}" for one in served)),
            *("--log-config", str((log_config or LOG_CONFIG).resolve())),
        ]
        environ = worker_environment(os.environ, java, scratch, self.logs)
        if explain:
            environ[EXPLAIN] = "1"
        try:
            java_process = self._launch(command, environ, Path(scratch), None if log_config else self.console)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise UserError(f"TorchServe ended at once:\n{self._printed() or error}") from error
        state = Running(
            java_process.pid, java_process.started, boot(), scratch, settings.inference, settings.management,
            served, keys,
        )  # fmt: skip
        self._started = state
        try:
            self._write(state)
        except OSError:  # the disk is full: without a state file the server could not be found again
            self.stop()
            raise
        return state

    def stop(self, grace: float = STOP_GRACE) -> bool:
        """End TorchServe and its workers, by force after `grace` seconds; return whether there were any.

        Raises NotEnded if one still runs; the state file is kept then.
        """
        found = False
        for _ in range(ROUNDS):
            if not (family := self.family()):
                break
            found = True
            numbers = {one.pid for one in family}
            for one in family:  # Java ends its workers itself; a suspended one must be resumed for that
                one.ask(signal.SIGCONT if one.parent in numbers else signal.SIGTERM)
            end(family, grace)
        self._forget()
        return found

    def _launch(
        self, command: list[str], environ: dict[str, str], scratch: Path, console: Path | None
    ) -> Process:
        """Run TorchServe's launcher, which starts Java and exits; return the Java process."""
        with console.open("wb") if console else contextlib.nullcontext() as output:
            subprocess.run(
                command, cwd=self.home, env=environ, check=True, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if output else None,
            )  # fmt: skip
        pid = int((scratch / ".model_server.pid").read_text(encoding="ascii"))
        if (java := Process.of(pid)) is None:
            raise ValueError(f"process {pid} has ended")
        return java

    def _printed(self) -> str:
        if not self.console.exists():
            return ""
        return self.console.read_text(encoding="utf-8", errors="replace").strip()

    def _forget(self) -> None:
        """Delete the files of a server that has ended."""
        left = self._read() or self._started
        if left is not None:
            remove(left.scratch, self.folder)
        self._started = None
        (self.home / tokens.KEY_FILE).unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _read(self) -> Running | None:
        """Return the recorded state; None if there is none, or it is not valid."""
        if (state := state_file.read(self._state)) is None:
            return None
        try:
            if "created" in state:  # from an earlier version, which used the clock
                state = _dated(state)
            found = Running(**{**state, "served": [Served(**one) for one in state["served"]]})
        except (TypeError, KeyError, ValueError):
            return None
        return found if found.is_sane else None

    def _write(self, state: Running) -> None:
        state_file.write(self._state, asdict(state))

    def _is_mine(self, process: Process, state: Running | None) -> bool:
        """Return whether a process belongs to this folder's TorchServe, judging by its environment."""
        given = process.environment
        scratch = given.get(TEMPORARY, "")
        logs = {given.get("LOG_LOCATION"), given.get("METRICS_LOCATION")}
        known = state is not None and scratch == state.scratch
        return _is_scratch(scratch) and (known or logs == {str(self.logs)})


def worker_environment(environ: Mapping[str, str], java: Java, scratch: str, logs: Path) -> dict[str, str]:
    """Return the environment for TorchServe: the caller's, without the variables in NOT_INHERITED."""
    kept = {key: value for key, value in environ.items() if key not in NOT_INHERITED}
    return (
        kept
        | WORKER_ENVIRONMENT
        | {
            # Not the caller's, which could shadow the archive's own modules.
            "PYTHONPATH": str(WORKER_START),
            "JAVA_HOME": str(java.home),
            "TMPDIR": scratch,  # Python's temporary folder, and
            "TEMP": scratch,  # Java's: two servers that share one stop each other
            "LOG_LOCATION": str(logs),
            "METRICS_LOCATION": str(logs),
        }
    )


def _is_nothing(entry: Path) -> bool:
    """Return whether an entry can be ignored: lost+found, or a file that a start has not filled."""
    left = ("lock", "supervisor.lock", "keeper.log", OWNER)
    return entry.name == "lost+found" or (entry.name in left and entry.is_file() and not entry.stat().st_size)


def own(folder: Path, run: Path) -> None:
    """Mark a folder as created by a run folder's server."""
    mark = folder / OWNER
    try:
        # Not truncated first: another start may be reading the same mark.
        with os.fdopen(os.open(mark, os.O_WRONLY | os.O_CREAT, 0o666), "w", encoding="ascii") as file:
            file.write(f"{run.stat().st_ino}\n")
            file.truncate()
    except OSError:
        mark.unlink(missing_ok=True)  # an incomplete mark would match no run folder
        raise


def is_of(folder: Path, run: Path) -> bool:
    """Return whether a folder was created by a run folder's server."""
    try:
        marked = (folder / OWNER).read_text(encoding="ascii")
        return marked == f"{run.stat().st_ino}\n" and folder.stat().st_uid == os.geteuid()
    except (OSError, ValueError):
        return False


def remove(scratch: str, run: Path) -> None:
    """Delete a temporary folder, if this run folder's server created it."""
    if Path(scratch).is_absolute() and is_of(Path(scratch), run):
        shutil.rmtree(scratch, ignore_errors=True)


def _is_scratch(folder: str) -> bool:
    """Return whether a folder has the name of a server's temporary folder."""
    return Path(folder).is_absolute() and Path(folder).name.startswith(SCRATCH)


def _dated(state: dict[str, Any]) -> dict[str, Any]:
    """Return an earlier version's state, with the process's start in clock ticks."""
    kept = {key: value for key, value in state.items() if key != "created"}
    process = Process.of(int(kept["pid"]))
    is_it = process is not None and process.environment.get(TEMPORARY) == kept["scratch"]
    return kept | {"started": process.started if process is not None and is_it else 0, "boot": boot()}


def process_of(state: Running) -> Process | None:
    """Return the server's Java process, None if it has ended."""
    return living(state.pid, state.started, state.boot)
