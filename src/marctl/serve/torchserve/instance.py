"""One TorchServe of this checkout: its folder, its processes, and what is known of it."""

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

# Seconds that TorchServe gets to end by itself after SIGTERM before it is killed.
STOP_GRACE = 20.0
# How often we look for more of its processes: one that ends may have started another one meanwhile.
ROUNDS = 5
WORKER_ENVIRONMENT = {
    # One arithmetic thread a worker: two workers with two threads each fight over two cores.
    "OMP_NUM_THREADS": "1",
    # Where ONNX Runtime is installed it reports to its makers, from its import on, unless told not to.
    "ORT_DISABLE_TELEMETRY": "1",
    # Bytes up to which memory is kept for the next image. glibc gives an image's back after each, and the
    # kernel clears all its pages anew: a third of the time that a small one takes.
    "MALLOC_MMAP_THRESHOLD_": str(2**23),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}
# With it alone a worker answers /explanations: handler/classifier/explain.py looks for it.
EXPLAIN = "EXPLAIN"
# What a worker does not inherit, because it would run other code than the archive's and the environment's, or
# load it otherwise, and has no use in a worker.
NOT_INHERITED = frozenset({
    # It would take the place of the settings given.
    "TS_CONFIG_FILE",
    # By the first torch.load runs code in any pickle; by the second in none, even where a handler asks.
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD",
    # Another standard library, a user's own packages, and bytecode from elsewhere in a module's place.
    "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONEXECUTABLE",
    # Code that Python runs besides, at its start, at its end, and where somebody left a breakpoint().
    "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT",
    # The same modules, without their asserts, or found by names that are not theirs.
    "PYTHONOPTIMIZE", "PYTHONCASEOK",
    # What starts several processes tells each its number; TorchServe's worker adds it to its socket's name,
    # under which nobody then finds it.
    "LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    # Whoever starts the server says so, not whoever set a variable.
    EXPLAIN,
})  # fmt: skip
# What a server's own folder for temporary files is called, and what tells it so.
SCRATCH, TEMPORARY = "torchserve-", "TMPDIR"
STATE = "server.json"
LOG = "ts_log.log"  # what TorchServe itself says, in the folder of logs
# What tells who runs here: of make serve, of make up.
STATES = (STATE, "keeper.json")
# In a folder of ours, the number that the file system knows the run folder by: no file that somebody brought
# along can hold it.
OWNER = ".run-folder"
LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
METRICS = Path(__file__).with_name("metrics.yaml")
# Its one file, sitecustomize.py, is what Python runs first in a worker.
WORKER_START = Path(__file__).resolve().parent / "worker"


@dataclass(frozen=True)
class Served:
    """An archive that is served: the model's name and version, its file and the file's SHA-256.

    What is loaded is a copy that nobody else can replace, where there is one.
    """

    model: str
    version: str
    archive: str  # as it was named
    sha256: str
    copy: str = ""  # what was checked and is loaded; "": the archive itself
    sealed: bool = True  # whether it has golden answers, and its files are those that it was sealed with

    @property
    def file(self) -> Path:
        """What is loaded."""
        return Path(self.copy or self.archive)


@dataclass(frozen=True)
class Running:
    """A started TorchServe: its Java process, and what it serves where."""

    pid: int
    started: int  # the process's start, in clock ticks from the boot: a pid alone may have gone to another
    boot: str  # which boot that was
    scratch: str  # its TMPDIR: sockets, unpacked models
    inference: str
    management: str
    served: list[Served]
    keys: str | None = None  # the file of its tokens; None where it wants none

    @property
    def is_sane(self) -> bool:
        """Whether all that processes are told by is of its kind."""
        numbers = isinstance(self.pid, int) and isinstance(self.started, int)
        return numbers and isinstance(self.boot, str) and isinstance(self.scratch, str)

    def authorization(self, kind: str) -> dict[str, str]:
        """Return the header that lets a request in, with the token of a kind; none where none is wanted.

        Raises what `KeyFile.token` does.
        """
        return {} if self.keys is None else self.key_file.header(kind)

    @property
    def key_file(self) -> tokens.KeyFile:
        """Where its tokens are. Raises UserError where it wants none."""
        if self.keys is None:
            raise UserError("this server wants no tokens")
        return tokens.KeyFile(Path(self.keys), self.management)


class Instance:
    """The folder in which one TorchServe runs: settings as started, logs, and who it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.logs = self.folder / "logs"
        self.console = self.logs / "console.log"
        self._logs_before = self.folder / "logs-before"
        # Java starts here, and finds classes here first: nothing that others put beside it.
        self.home = self.folder / "java"
        self._state = self.folder / STATE
        self._started: Running | None = None  # by this process: somebody may delete the file that says so

    @property
    def is_foreign(self) -> bool:
        """Whether the folder holds somebody's files: a start would replace some, and might run others."""
        if not self.folder.is_dir() or is_of(self.folder, self.folder):
            return False
        return any(not _is_nothing(entry) for entry in self.folder.iterdir())

    def claim(self) -> None:
        """Make the folder, and make it a server's. Raises UserError where it holds somebody's files."""
        if self.is_foreign:
            raise UserError(
                f"{self.folder} holds files that no server put there; name a folder by RUN that is empty or "
                "not there yet, or empty this one"
            )
        with contextlib.suppress(OSError):  # what cannot be written is said by whoever needs it
            self.folder.mkdir(parents=True, exist_ok=True)
            own(self.folder, self.folder)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second start in the same folder waiting until this one is done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def running(self) -> Running | None:
        """Return the TorchServe that runs here, None where there is none."""
        state = self._read() or self._started
        if state is None or process_of(state) is None:
            return None
        if not self._state.exists():
            with contextlib.suppress(OSError):  # no room, or the folder is gone as well
                self._write(state)
        return state

    def family(self) -> list[Process]:
        """Return TorchServe's processes of this folder, whether or not anything is written down of them."""
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
        """Start TorchServe with archives of one folder and return at once: it is not ready yet.

        With a log configuration of its own it prints on this process's output, else into a file.
        Raises UserError where its process ends at once.
        """
        if names := patches.unknown():
            raise UserError(
                f"{patches.UNPATCHED} names {', '.join(names)}; it knows {', '.join(patches.NAMES)}"
            )
        shutil.rmtree(self._logs_before, ignore_errors=True)
        if self.logs.exists():  # of one that may have died: they say why
            self.logs.rename(self._logs_before)
        self._forget()
        self.logs.mkdir(parents=True)
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        if patches.is_wanted(patches.GREEDY_BATCHES):
            greedy_batches.install(self.home)
        keys = str(tokens.prepare(self.home)) if settings.tokens else None
        config = self.folder / "config.properties"
        # A copy, by a bare name: a properties file is read as Latin-1, and a checkout's path may be anything.
        # Of two lines TorchServe takes the later: a metrics_config in the settings stands.
        shutil.copyfile(METRICS, self.home / METRICS.name)
        config.write_text(f"metrics_config={METRICS.name}\n{settings.text}", encoding="utf-8")
        # In the system's temporary folder and not here: the workers' sockets lie in it, and the path
        # of a Unix socket ends at 107 characters, which a deep checkout exceeds.
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
        except OSError:  # the disk is full: what nobody knows of could never be stopped
            self.stop()
            raise
        return state

    def stop(self, grace: float = STOP_GRACE) -> bool:
        """End TorchServe and its workers, by force after `grace` seconds; return whether there were any.

        Raises NotEnded where one still runs; nothing is forgotten then.
        """
        found = False
        for _ in range(ROUNDS):
            if not (family := self.family()):
                break
            found = True
            numbers = {one.pid for one in family}
            for one in family:  # Java ends its workers itself; one that stands still has to go on for that
                one.ask(signal.SIGCONT if one.parent in numbers else signal.SIGTERM)
            end(family, grace)
        self._forget()
        return found

    def _launch(
        self, command: list[str], environ: dict[str, str], scratch: Path, console: Path | None
    ) -> Process:
        """Run TorchServe's launcher, which starts Java and ends; return Java."""
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
        """Remove what is left of a server that has ended, by itself or not."""
        left = self._read() or self._started
        if left is not None:
            remove(left.scratch, self.folder)
        self._started = None
        (self.home / tokens.KEY_FILE).unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _read(self) -> Running | None:
        """Return what is written down, None where nothing is, or what nobody wrote."""
        if (state := state_file.read(self._state)) is None:
            return None
        try:
            if "created" in state:  # by an earlier version, which went by the clock
                state = _dated(state)
            found = Running(**{**state, "served": [Served(**one) for one in state["served"]]})
        except (TypeError, KeyError, ValueError):
            return None
        return found if found.is_sane else None

    def _write(self, state: Running) -> None:
        state_file.write(self._state, asdict(state))

    def _is_mine(self, process: Process, state: Running | None) -> bool:
        """Return by what it was started with whether a process belongs to this folder's TorchServe."""
        given = process.environment
        scratch = given.get(TEMPORARY, "")
        logs = {given.get("LOG_LOCATION"), given.get("METRICS_LOCATION")}
        known = state is not None and scratch == state.scratch
        return _is_scratch(scratch) and (known or logs == {str(self.logs)})


def worker_environment(environ: Mapping[str, str], java: Java, scratch: str, logs: Path) -> dict[str, str]:
    """Return the environment for TorchServe: the caller's, without what would change the archive."""
    kept = {key: value for key, value in environ.items() if key not in NOT_INHERITED}
    return (
        kept
        | WORKER_ENVIRONMENT
        | {
            # Not the caller's, which would shadow the archive's own modules.
            "PYTHONPATH": str(WORKER_START),
            "JAVA_HOME": str(java.home),
            "TMPDIR": scratch,  # Python's and
            "TEMP": scratch,  # Java's temporary folder: shared, two servers stop each other
            "LOG_LOCATION": str(logs),
            "METRICS_LOCATION": str(logs),
        }
    )


def _is_nothing(entry: Path) -> bool:
    """Return whether an entry is nobody's: a disk's own, or the empty rest of a start on a full one."""
    left = ("lock", "supervisor.lock", "keeper.log")
    return entry.name == "lost+found" or (entry.name in left and entry.is_file() and not entry.stat().st_size)


def own(folder: Path, run: Path) -> None:
    """Mark a folder as one that a server of a run folder made."""
    mark = folder / OWNER
    try:
        mark.write_text(f"{run.stat().st_ino}\n", encoding="ascii")
    except OSError:
        mark.unlink(missing_ok=True)  # half of it would be nobody's
        raise


def is_of(folder: Path, run: Path) -> bool:
    """Return whether a folder was made by a server of a run folder."""
    try:
        marked = (folder / OWNER).read_text(encoding="ascii")
        return marked == f"{run.stat().st_ino}\n" and folder.stat().st_uid == os.geteuid()
    except (OSError, ValueError):
        return False


def remove(scratch: str, run: Path) -> None:
    """Delete a server's temporary folder, if it was made by a server of this run folder."""
    if Path(scratch).is_absolute() and is_of(Path(scratch), run):
        shutil.rmtree(scratch, ignore_errors=True)


def _is_scratch(folder: str) -> bool:
    """Return whether a folder is named as those that a start makes: a mark of its processes."""
    return Path(folder).is_absolute() and Path(folder).name.startswith(SCRATCH)


def _dated(state: dict[str, Any]) -> dict[str, Any]:
    """Return an earlier version's state with the process's start as it is counted now."""
    kept = {key: value for key, value in state.items() if key != "created"}
    process = Process.of(int(kept["pid"]))
    is_it = process is not None and process.environment.get(TEMPORARY) == kept["scratch"]
    return kept | {"started": process.started if process is not None and is_it else 0, "boot": boot()}


def process_of(state: Running) -> Process | None:
    """Return the server's Java process, None where it has ended."""
    return living(state.pid, state.started, state.boot)
