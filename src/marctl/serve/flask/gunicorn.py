"""Run a WSGI application with gunicorn, in the foreground; each worker loads it after the fork."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from marctl.archive.mar import BadArchive
from marctl.errors import UserError
from marctl.serve.torchserve.readiness import NotReady

WORKERS = 2
SHARED_MEMORY = "/dev/shm"  # noqa: S108 no file with a guessable name is created there
SETTINGS = {
    "workers": WORKERS,
    # Threads receive requests, slow ones too; they do not compute in parallel.
    "worker_class": "gthread",
    "threads": 8,
    # Seconds for a worker to load, and between its signs of life, before it is replaced.
    "timeout": 120,
    # Seconds to answer requests in progress at a stop: docker kills after 10.
    "graceful_timeout": 8,
    # Without messages such as "Handling signal: term"; errors and killed workers are still logged.
    "loglevel": "warning",
    # Otherwise gunicorn opens a control socket in the home folder.
    "control_socket_disable": True,
}


class Main(Arbiter):
    """gunicorn's main process. It exits if a worker ends before any has loaded: the next one would end too.

    Later, a worker that ends is replaced, whatever its status.
    """

    app: Server

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers."""
        self.app.keep_fault()
        super().stop(graceful)

    def reap_workers(self) -> None:
        """Reap the workers that have ended."""
        for pid in () if self.app.has_loaded or self._is_stopping else list(self.WORKERS):
            if (end := _end_of(pid)) is not None:
                self.app.record_fault(f"a worker ended while it loaded ({end})")
                raise StopIteration  # as at SIGTERM
        while True:
            try:
                super().reap_workers()
            except HaltServer:  # a worker's status 3 or 4 would end the server, and hide how the others ended
                continue
            return

    @property
    def _is_stopping(self) -> bool:
        return not self.LISTENERS


class Server(BaseApplication):
    """One gunicorn, and the folder in which its workers unpack the archive and record a fault."""

    def __init__(
        self, address: str, folder: Path, load: Callable[[], Any], prove: Callable[[], None]
    ) -> None:
        """Take `load`, called in each worker, and `prove`, called in the first one loaded.

        `prove` raises NotReady.
        """
        self._address, self._folder, self._load, self._prove = address, folder, load, prove
        self._main = os.getpid()
        self._ended_by: str | None = None
        self._ends = False
        super().__init__()

    @property
    def has_loaded(self) -> bool:
        """Whether a worker has loaded."""
        return self._mark.exists()

    def serve(self) -> None:
        """Serve until SIGTERM or Ctrl-C. Raises UserError if a worker's fault ended the server."""
        try:
            Main(self).run()
        except SystemExit as end:  # raised in the workers too
            if os.getpid() == self._main:
                self._raise_fault()
            if end.code:
                raise

    def load_config(self) -> None:
        """Apply the settings."""
        settings = SETTINGS | {"bind": self._address, "post_worker_init": self._loaded}
        if os.access(SHARED_MEMORY, os.W_OK):  # the workers' heartbeat files need no disk
            settings["worker_tmp_dir"] = SHARED_MEMORY
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application, in a worker; if its archive is bad, the whole server ends."""
        # Ctrl-C reaches all processes, but the main one ends the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        tempfile.tempdir = str(self._folder)
        try:
            return self._load()
        except BadArchive as error:
            self._give_up(error)
            sys.exit(0)

    def _loaded(self, _: Any) -> None:
        """In the first worker that has loaded, check in a thread that requests are answered."""
        with contextlib.suppress(FileExistsError):
            self._mark.touch(exist_ok=False)
            threading.Thread(target=self._try, daemon=True).start()

    def _try(self) -> None:
        try:
            self._prove()
        except NotReady as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Record a fault, and have the main process end the server."""
        self.record_fault(str(error))
        os.kill(self._main, signal.SIGTERM)

    def record_fault(self, fault: str) -> None:
        """Write down why the server ends; the first fault is kept."""
        with contextlib.suppress(FileExistsError), self._fault.open("x", encoding="utf-8") as file:
            file.write(fault)

    def keep_fault(self) -> None:
        """Keep the fault that ends the server, at the first call.

        Later ones are consequences: a signal in the middle of an extension module's import, for example,
        is an ImportError.
        """
        if not self._ends and self._fault.exists():
            self._ended_by = self._fault.read_text(encoding="utf-8")
        self._ends = True

    def _raise_fault(self) -> None:
        if self._ended_by is not None:
            raise UserError(self._ended_by) from None

    @property
    def _mark(self) -> Path:
        return self._folder / "loaded"

    @property
    def _fault(self) -> Path:
        return self._folder / "fault"


def _end_of(pid: int) -> str | None:
    """Describe how a child ended, without reaping it; None if it runs."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    if ended.si_code == os.CLD_EXITED:
        return f"status {ended.si_status}"
    memory = "; out of memory?" if ended.si_status == signal.SIGKILL else ""
    return f"signal {ended.si_status}{memory}"


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Create a temporary folder; the process that created it, not a worker, deletes it at the end.

    A killed worker could not clean up after itself.
    """
    main, folder = os.getpid(), _new_folder()
    try:
        yield folder
    finally:
        if os.getpid() == main:
            shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> Path:
    """Create a folder; in a container with a read-only root, shared memory may be the only place."""
    prefix = "flask-"
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=SHARED_MEMORY))
