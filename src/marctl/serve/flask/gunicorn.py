"""Run a WSGI application by gunicorn, in the foreground: each worker loads it after the fork."""

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
SHARED_MEMORY = "/dev/shm"  # noqa: S108 no file of a guessable name is made there
SETTINGS = {
    "workers": WORKERS,
    # They take in what clients send, slow ones too, and so do not compute more at once.
    "worker_class": "gthread",
    "threads": 8,
    # Seconds in which a worker must have loaded, and must show that it lives, before it is replaced.
    "timeout": 120,
    # Seconds for answers under way at a stop: docker kills after 10.
    "graceful_timeout": 8,
    # Its own is to write "Handling signal: term" and the like; faults and killed workers remain.
    "loglevel": "warning",
    # It would open a socket in the home folder, to be steered by.
    "control_socket_disable": True,
}


class Main(Arbiter):
    """gunicorn's main process. It ends where a worker ends before any has loaded: the next would, too.

    After that a worker that ends is replaced, whatever its status.
    """

    app: Server

    def reap_workers(self) -> None:
        """Take note of the workers that have ended."""
        for pid in () if self.app.has_loaded or self._is_stopping else list(self.WORKERS):
            if (end := _end_of(pid)) is not None:
                self.app.leave_word(f"a worker ended while it loaded ({end})")
                raise StopIteration  # as at SIGTERM
        while True:
            try:
                super().reap_workers()
            except HaltServer:  # by its statuses 3 and 4 a worker would end all, and hide the others' ends
                continue
            return

    @property
    def _is_stopping(self) -> bool:
        return not self.LISTENERS


class Server(BaseApplication):
    """One gunicorn, and the folder in which its workers unpack and leave word of a fault."""

    def __init__(
        self, address: str, folder: Path, load: Callable[[], Any], prove: Callable[[], None]
    ) -> None:
        """Take what each worker loads, and what one of them calls when it has: it raises NotReady."""
        self._address, self._folder, self._load, self._prove = address, folder, load, prove
        self._main = os.getpid()
        super().__init__()

    @property
    def has_loaded(self) -> bool:
        """Whether a worker has loaded."""
        return self._mark.exists()

    def serve(self) -> None:
        """Return when SIGTERM or Ctrl-C has ended the server. Raises UserError where a worker ended it."""
        try:
            Main(self).run()
        except SystemExit as end:  # the workers end by it, too
            if os.getpid() == self._main:
                self._raise_fault()
            if end.code:
                raise

    def load_config(self) -> None:
        """Tell gunicorn its settings."""
        settings = SETTINGS | {"bind": self._address, "post_worker_init": self._loaded}
        if os.access(SHARED_MEMORY, os.W_OK):  # the workers' signs of life need no disk
            settings["worker_tmp_dir"] = SHARED_MEMORY
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application, in a worker; where its archive is bad the whole server ends."""
        # Ctrl-C reaches all processes; the main one ends the others, and twice would be once too often.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        tempfile.tempdir = str(self._folder)
        try:
            return self._load()
        except BadArchive as error:
            self._give_up(error)
            sys.exit(0)

    def _loaded(self, _: Any) -> None:
        """Let the first worker that has loaded prove that requests are answered, while it answers them."""
        with contextlib.suppress(FileExistsError):
            self._mark.touch(exist_ok=False)
            threading.Thread(target=self._try, daemon=True).start()

    def _try(self) -> None:
        try:
            self._prove()
        except NotReady as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Leave word of a fault, and have the main process end all."""
        self.leave_word(str(error))
        os.kill(self._main, signal.SIGTERM)

    def leave_word(self, fault: str) -> None:
        """Write down what ends the server; the first fault stays."""
        with contextlib.suppress(FileExistsError), self._fault.open("x", encoding="utf-8") as file:
            file.write(fault)

    def _raise_fault(self) -> None:
        if self._fault.exists():
            raise UserError(self._fault.read_text(encoding="utf-8")) from None

    @property
    def _mark(self) -> Path:
        return self._folder / "loaded"

    @property
    def _fault(self) -> Path:
        return self._folder / "fault"


def _end_of(pid: int) -> str | None:
    """Say how a child has ended, and leave its status to be asked for; None where it runs."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    if ended.si_code == os.CLD_EXITED:
        return f"status {ended.si_status}"
    memory = "; out of memory?" if ended.si_status == signal.SIGKILL else ""
    return f"signal {ended.si_status}{memory}"


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Make a folder of our own; the process that made it, and no worker of its, deletes it at the end.

    A worker that was killed could not clean up after itself.
    """
    main, folder = os.getpid(), _new_folder()
    try:
        yield folder
    finally:
        if os.getpid() == main:
            shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> Path:
    """Make a folder; in a container whose root is read-only there may be shared memory alone."""
    prefix = "flask-"
    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=SHARED_MEMORY))
