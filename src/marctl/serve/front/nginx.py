"""The reverse proxy: an nginx that passes images on to TorchServe, serves the web page, and nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from marctl.errors import UserError
from marctl.serve import state_file
from marctl.serve.page import files as page_files
from marctl.serve.ports import why_not
from marctl.serve.processes import POLL, STOPPED, Process, boot, end, lives, living, processes, wait_for_end
from marctl.serve.refusals import as_nginx_maps, of_proxy

TEMPLATE = Path(__file__).with_name("nginx.conf")
PLACE = re.compile(r"@([A-Z]+)@")
PROGRAM = "nginx"
# Debian installs it in sbin, which is often not in a user's PATH.
PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
# Seconds to answer the accepted requests at a stop.
DRAIN = 8
# Seconds after which a client may retry; a server that died is back after three (docs/faults.md).
RETRY = 2
ROOT = 0
ERRORS = "error.log"
RELEASE = 1.0  # second for workers without a master to close their port
WRITING = 5.0  # seconds until a new nginx has written its PID file
# Searches for remaining processes: one that ends may have started another in the meantime.
ROUNDS = 5
# The links by which nginx finds the certificate and its key.
CERTIFICATE, KEY = "certificate.pem", "key.pem"
HEALTH_SOCKET = "health"
SWITCH, CLOSED = "twin-answers", "closed"


@dataclass(frozen=True)
class Opening:
    """What a reverse proxy accepts, and where it passes it on."""

    port: int
    inference: str  # TorchServe's address
    twin: str  # the address of the second slot
    scratch: Path  # holds request bodies in transit, the health socket and the page
    body: int  # largest request body, in bytes
    answer: int  # seconds for a prediction
    rate: int  # requests per second from one address
    connections: int  # simultaneous connections from one address
    certificate: Path | None = None
    key: Path | None = None

    @property
    def address(self) -> str:
        """The proxy's address for clients on this machine."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def health(self) -> Path:
        """The Unix socket that answers /health."""
        return self.scratch / HEALTH_SOCKET

    @property
    def switch(self) -> Path:
        """While this file exists, predictions go to the twin."""
        return self.scratch / SWITCH

    @property
    def closed(self) -> Path:
        """While this file exists, every new prediction gets 503."""
        return self.scratch / CLOSED


class Proxy:
    """One nginx in its own folder: its configuration, its processes, its error log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._config = self.folder / "nginx.conf"
        self._state = self.folder / "master.json"
        self._started: tuple[int, int, str] | None = None  # by this process: the file may get deleted
        self._seen: list[Process] = []

    def open(self, opening: Opening) -> None:
        """Start nginx. Raises UserError if it is not installed or does not start."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        page_files.lay_out(opening.scratch)
        self._start(opening)

    def open_again(self, opening: Opening) -> None:
        """Restart nginx, whatever is left of it. Raises UserError."""
        left = self.family()
        if self.master is not None:  # it does not answer: ending it loses nothing
            end(left, 0)
        for process in left:  # without a master: they answer accepted requests, and stop listening
            process.ask(signal.SIGQUIT)
        stop = time.monotonic() + RELEASE
        # nginx itself checks twice a second whether its port is free.
        while why_not(opening.port) is not None and time.monotonic() < stop:
            time.sleep(POLL)
        try:
            self._start(opening)
        except UserError:
            end(left, 0)  # a process that ignores signals still has the port
            self._start(opening)
        end(left, DRAIN + 1)

    def refuse(self, opening: Opening) -> None:
        """Answer new predictions with 503; return when those in progress are answered, or DRAIN is over."""
        opening.closed.touch()
        if (master := self.master) is None:
            return
        before = [process for process in self.family() if process.parent == master.pid]
        # A reload starts new workers; the old ones answer the requests they have, and end.
        master.ask(signal.SIGHUP)
        wait_for_end(before, DRAIN + 1)

    def close(self) -> bool:
        """End nginx and its remaining processes; return whether there were any. Raises NotEnded."""
        found = False
        for _ in range(ROUNDS):
            if not (family := self.family()):
                break
            found = True
            for process in family:
                process.ask(signal.SIGQUIT)
            end(family, DRAIN + 1)
        self._state.unlink(missing_ok=True)
        return found

    @property
    def master(self) -> Process | None:
        """The master process, None if it has ended."""
        return living(*self._known) if self._known is not None else None

    def family(self) -> list[Process]:
        """Return this folder's nginx processes, the master first; its workers outlive it."""
        found = [one for one in processes() if one.name == PROGRAM and self._is_mine(one)]
        numbers = {one.pid for one in found}
        return sorted(found, key=lambda one: one.parent in numbers)

    @property
    def stopped(self) -> list[Process]:
        """Its suspended processes, as by SIGSTOP."""
        if not self._seen or not all(lives(one) for one in self._seen):
            self._seen = self.family()
        now = (Process.of(one.pid) for one in self._seen)
        return [one for one in now if one is not None and one.state == STOPPED]

    def _link_tls(self, opening: Opening) -> None:
        """Link the certificate and its key into the folder. Raises UserError if one is missing."""
        for name, file in ((CERTIFICATE, opening.certificate), (KEY, opening.key)):
            if file is None:
                continue
            if not file.is_file():
                raise UserError(f"TLS needs a PEM file, and there is none at {file}")
            link = self.folder / name
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())

    def _start(self, opening: Opening) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._config.exists():  # else keep it: processes left from another start may have the port
            self._config.write_text(rendered(opening), encoding="utf-8")
            self._link_tls(opening)
        number = self.folder / "nginx.pid"
        number.unlink(missing_ok=True)
        self._nginx()
        # nginx writes its PID file and starts its workers after the command has ended.
        stop = time.monotonic() + WRITING
        while (master := _process_in(number)) is None:
            if time.monotonic() > stop:
                raise UserError(f"nginx ended at once; see {self.folder / ERRORS}")
            time.sleep(POLL)
        self._started = master.pid, master.started, boot()
        with contextlib.suppress(OSError):  # disk full: others find nginx by its open files
            state_file.write(self._state, dict(zip(("pid", "started", "boot"), self._started, strict=True)))

    def _nginx(self) -> None:
        program = shutil.which(PROGRAM, path=PLACES)
        if program is None:
            raise UserError("nginx, the reverse proxy, is not installed; apt-get install nginx-light, "
                          "or serve this machine only: make serve")  # fmt: skip
        command = [program, "-e", ERRORS, "-p", f"{self.folder}/", "-c", str(self._config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"nginx does not start: {done.stderr.strip()}")

    @property
    def _known(self) -> tuple[int, int, str] | None:
        """The last known master's PID, start and boot."""
        if self._started is not None:
            return self._started
        state = state_file.read(self._state) or {}
        try:
            return int(state["pid"]), int(state["started"]), str(state["boot"])
        except (KeyError, TypeError, ValueError):
            return None

    def _is_mine(self, process: Process) -> bool:
        """Return whether an nginx belongs to this folder: it has the error log there open, deleted or not."""
        if (names := process.open_files) is not None:
            return any(name.startswith(f"{self.folder}/") for name in names)
        # In some containers even root may not read the open files of nobody's processes. But they are in the
        # session that the master began, whose ID is not reused while one of them is alive.
        if self._known is None or process.session != self._known[0] or self._known[2] != boot():
            return False
        first = Process.of(process.session)
        return first is None or first.started == self._known[1]


def _process_in(file: Path) -> Process | None:
    """Return the process whose PID is in a file, None if there is none yet."""
    try:
        process = Process.of(int(file.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None
    return process if process is not None and lives(process) else None


def rendered(opening: Opening) -> str:
    """Return nginx's configuration for an opening."""
    values = {
        # Only root can switch to another user, and root should not handle requests itself.
        "USER": "user nobody nogroup;" if os.geteuid() == ROOT else "",
        "DRAIN": DRAIN,
        "SCRATCH": _quoted(opening.scratch),
        "RATE": opening.rate,
        "CONNECTIONS": opening.connections,
        "INFERENCE": urlsplit(opening.inference).netloc,
        "TWIN": urlsplit(opening.twin).netloc,
        "SWITCH": _quoted(opening.switch),
        "HEALTH": _quoted(opening.health),
        "LISTEN": _listen(opening),
        "TLS": _tls(opening),
        "BODY": opening.body,
        "CLOSED": _quoted(opening.closed),
        "ANSWER": opening.answer,
        "RETRY": RETRY,
        "REFUSALS": as_nginx_maps(of_proxy(opening.body, opening.rate, opening.connections, RETRY)),
        "INDEX": page_files.INDEX,
        "TYPES": " ".join(f"{kind} {ending};" for ending, kind in page_files.TYPES.items()),
        "HEADERS": "\n            ".join(
            f'add_header {name} "{value}";' for name, value in page_files.HEADERS.items()
        ),
    }
    return PLACE.sub(lambda found: str(values[found[1]]), TEMPLATE.read_text(encoding="utf-8"))


def _listen(opening: Opening) -> str:
    """Return the addresses: all of the machine's, with IPv6 if it has it."""
    tls = " ssl" if opening.certificate else ""
    places = [str(opening.port)]
    if why_not(opening.port, "::1") is None:
        places.append(f"[::]:{opening.port} ipv6only=on")
    return " ".join(f"listen {place}{tls};" for place in places)


def _tls(opening: Opening) -> str:
    if opening.certificate is None or opening.key is None:
        return ""
    return f"ssl_certificate {CERTIFICATE}; ssl_certificate_key {KEY}; ssl_protocols TLSv1.2 TLSv1.3;"


def _quoted(path: Path) -> str:
    """Return a path for nginx's double quotes. Raises UserError if nginx cannot use it."""
    text = str(path)
    if "$" in text or not text.isprintable():
        raise UserError(f"nginx cannot use the path {text!r}; set TMPDIR to a folder without $ in its name")
    return text.replace("\\", "\\\\").replace('"', '\\"')
