"""One TorchServe of this checkout: its folder, its processes, and what is known of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

import greedy_batches
import tokens
from java import Java
from process_end import end, living
from settings import Settings

# Seconds that TorchServe gets to end by itself after SIGTERM before it is killed.
STOP_GRACE = 20.0
WORKER_ENVIRONMENT = {
    # One arithmetic thread a worker: two workers with two threads each fight over two cores.
    "OMP_NUM_THREADS": "1",
    # Where ONNX Runtime is installed it reports to its makers, from its import on, unless told not to.
    "ORT_DISABLE_TELEMETRY": "1",
    # Bytes up to which memory is kept for the next picture. glibc gives a picture's back after each, and the
    # kernel clears all its pages anew: a third of the time that a small one takes.
    "MALLOC_MMAP_THRESHOLD_": str(2**23),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}
# With it alone a worker answers /explanations: handler/explanation.py looks for it.
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
LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
METRICS = Path(__file__).with_name("metrics.yaml")
# Its one file, sitecustomize.py, is what Python runs first in a worker.
WORKER_START = Path(__file__).resolve().parent / "worker"


class NotStarted(RuntimeError):
    """TorchServe's process ended at once; the text is what it said."""


@dataclass(frozen=True)
class Served:
    """An archive that is served: the model's name and version, its file and the file's SHA-256.

    What is loaded is a copy that nobody else can replace, where there is one.
    """

    model: str
    version: str
    archive: str         # as it was named
    sha256: str
    copy: str = ""       # what was checked and is loaded; "": the archive itself
    sealed: bool = True  # whether it has golden answers, and its files are those that it was sealed with

    @property
    def file(self) -> Path:
        """What is loaded."""
        return Path(self.copy or self.archive)


@dataclass(frozen=True)
class Running:
    """A started TorchServe: its Java process, and what it serves where."""

    pid: int
    created: float  # the process's start, seconds since 1970: a pid alone may have gone to another
    scratch: str    # its TMPDIR: sockets, unpacked models
    inference: str
    management: str
    served: list[Served]
    keys: str | None = None  # the file of its tokens; None where it wants none

    def authorization(self, kind: str) -> dict[str, str]:
        """Return the header that lets a request in, with the token of a kind; none where none is wanted.

        Raises what `KeyFile.token` does.
        """
        return {} if self.keys is None else self.key_file.header(kind)

    @property
    def key_file(self) -> tokens.KeyFile:
        """Where its tokens are. Raises NoToken where it wants none."""
        if self.keys is None:
            raise tokens.NoToken("this server wants no tokens; for one that does: make stop serve TOKENS=on")
        return tokens.KeyFile(Path(self.keys), self.management)


class Instance:
    """The folder in which one TorchServe runs: settings as started, logs, and who it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.logs = self.folder / "logs"
        self.console = self.logs / "console.log"
        self._logs_before = self.folder / "logs-before"
        self._state = self.folder / "server.json"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second start in the same folder waiting until this one is done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def running(self) -> Running | None:
        """Return the TorchServe that runs here, None where there is none."""
        state = self._read()
        return state if state is not None and process_of(state) is not None else None

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
        Raises NotStarted where its process ends at once.
        """
        shutil.rmtree(self._logs_before, ignore_errors=True)
        if self.logs.exists():  # of one that may have died: they say why
            self.logs.rename(self._logs_before)
        self._forget()
        self.logs.mkdir(parents=True)
        greedy_batches.install(self.folder)
        keys = str(tokens.prepare(self.folder)) if settings.tokens else None
        config = self.folder / "config.properties"
        # A copy, by a bare name: a properties file is read as Latin-1, and a checkout's path may be anything.
        # Of two lines TorchServe takes the later: a metrics_config in the settings stands.
        shutil.copyfile(METRICS, self.folder / METRICS.name)
        config.write_text(f"metrics_config={METRICS.name}\n{settings.text}", encoding="utf-8")
        # In the system's temporary folder and not here: the workers' sockets lie in it, and the path
        # of a Unix socket ends at 107 characters, which a deep checkout exceeds.
        scratch = tempfile.mkdtemp(prefix="torchserve-")
        command = [
            *(sys.executable, "-m", "ts.model_server", "--start", "--ncs"),
            *("--ts-config", str(config)),
            *("--model-store", str(served[0].file.resolve().parent)),
            *("--models", *(f"{one.model}={one.file.name}" for one in served)),
            *("--log-config", str((log_config or LOG_CONFIG).resolve())),
        ]
        environ = worker_environment(os.environ, java, scratch, self.logs)
        if explain:
            environ[EXPLAIN] = "1"
        try:
            pid, created = self._launch(command, environ, Path(scratch), None if log_config else self.console)
        except (OSError, ValueError, subprocess.CalledProcessError, psutil.NoSuchProcess) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise NotStarted(f"TorchServe ended at once:\n{self._printed() or error}") from error
        state = Running(pid, created, scratch, settings.inference, settings.management, served, keys)
        try:
            self._state.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
        except OSError:  # the disk is full: what nobody knows of could never be stopped
            self._end(psutil.Process(pid), STOP_GRACE)
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return state

    def stop(self, grace: float = STOP_GRACE) -> bool:
        """End TorchServe and its workers, by force after `grace` seconds; return whether there was one."""
        state = self.running()
        if state is not None:
            self._end(psutil.Process(state.pid), grace)
        self._forget()
        return state is not None

    @staticmethod
    def _end(server: psutil.Process, grace: float) -> None:
        family = [*server.children(recursive=True), server]
        server.terminate()
        end(family, grace)

    def _launch(
        self, command: list[str], environ: dict[str, str], scratch: Path, console: Path | None
    ) -> tuple[int, float]:
        """Run TorchServe's launcher, which starts Java and ends; return Java's pid and start time."""
        with console.open("wb") if console else contextlib.nullcontext() as output:
            subprocess.run(
                command, cwd=self.folder, env=environ, check=True, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if output else None,
            )  # fmt: skip
        pid = int((scratch / ".model_server.pid").read_text(encoding="ascii"))
        return pid, psutil.Process(pid).create_time()

    def _printed(self) -> str:
        if not self.console.exists():
            return ""
        return self.console.read_text(encoding="utf-8", errors="replace").strip()

    def _forget(self) -> None:
        """Remove what is left of a server that has ended, by itself or not."""
        if (left := self._read()) is not None:
            shutil.rmtree(left.scratch, ignore_errors=True)
        (self.folder / tokens.KEY_FILE).unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _read(self) -> Running | None:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return Running(**{**state, "served": [Served(**one) for one in state["served"]]})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def worker_environment(environ: Mapping[str, str], java: Java, scratch: str, logs: Path) -> dict[str, str]:
    """Return the environment for TorchServe: the caller's, without what would change the archive."""
    kept = {key: value for key, value in environ.items() if key not in NOT_INHERITED}
    return kept | WORKER_ENVIRONMENT | {
        # Not the caller's, which would shadow the archive's own modules.
        "PYTHONPATH": str(WORKER_START),
        "JAVA_HOME": str(java.home),
        "TMPDIR": scratch,  # Python's and
        "TEMP": scratch,    # Java's temporary folder: shared, two servers stop each other
        "LOG_LOCATION": str(logs),
        "METRICS_LOCATION": str(logs),
    }


def process_of(state: Running) -> psutil.Process | None:
    """Return the server's Java process, None where it has ended."""
    return living(state.pid, state.created)
