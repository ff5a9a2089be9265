"""The reverse proxy: an nginx before TorchServe that lets in images, has a page for them, and no more."""

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
# Where Debian puts it; a user's PATH often has no sbin.
PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
# Seconds in which what was taken in is answered at a stop.
DRAIN = 8
# Seconds after which a client may ask again; a server that died is back after three (docs/faults.md).
RETRY = 2
ROOT = 0
ERRORS = "error.log"
LETTING_GO = 1.0  # second in which those without a master have closed their port
WRITING = 5.0  # seconds until a new nginx has written its number down
# How often we look for more of its processes: one that ends may have started another one meanwhile.
ROUNDS = 5
# What nginx finds a certificate and its key by, whatever their own names are.
CERTIFICATE, KEY = "certificate.pem", "key.pem"
HEALTH_SOCKET = "health"
SWITCH, CLOSED = "twin-answers", "closed"


@dataclass(frozen=True)
class Opening:
    """What a reverse proxy lets in, and where it leads."""

    port: int
    inference: str  # TorchServe's address
    twin: str  # that of another version beside it
    scratch: Path  # for bodies under way; the socket that answers /health lies in it, and the page
    body: int  # bytes that a request may have
    answer: int  # seconds in which a prediction is answered
    rate: int  # requests a second from one address
    connections: int  # of one address at once
    certificate: Path | None = None
    key: Path | None = None

    @property
    def address(self) -> str:
        """Where clients on this machine find the door."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def health(self) -> Path:
        """The Unix socket that answers /health."""
        return self.scratch / HEALTH_SOCKET

    @property
    def switch(self) -> Path:
        """The file with which predictions go to the twin."""
        return self.scratch / SWITCH

    @property
    def closed(self) -> Path:
        """The file with which every new prediction gets 503."""
        return self.scratch / CLOSED


class Proxy:
    """One nginx in a folder of its own: its configuration, its processes, its error log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._config = self.folder / "nginx.conf"
        self._state = self.folder / "master.json"
        self._started: tuple[int, int, str] | None = None  # by this process: somebody may delete the file
        self._seen: list[Process] = []

    def open(self, opening: Opening) -> None:
        """Start nginx. Raises UserError where it is not installed, or refuses."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        page_files.lay_out(opening.scratch)
        self._start(opening)

    def open_again(self, opening: Opening) -> None:
        """Start nginx anew, whatever is left of it. Raises UserError."""
        left = self.family()
        if self.master is not None:  # it does not answer: nothing is lost with it
            end(left, 0)
        for process in left:  # without a master they answer what they took in, and listen no more
            process.ask(signal.SIGQUIT)
        stop = time.monotonic() + LETTING_GO
        # nginx itself looks twice a second whether its port is free.
        while why_not(opening.port) is not None and time.monotonic() < stop:
            time.sleep(POLL)
        try:
            self._start(opening)
        except UserError:
            end(left, 0)  # one that takes no signal still has the port
            self._start(opening)
        end(left, DRAIN + 1)

    def refuse(self, opening: Opening) -> None:
        """Answer every new prediction by 503; return when those under way are answered, or DRAIN is over."""
        opening.closed.touch()
        if (master := self.master) is None:
            return
        before = [process for process in self.family() if process.parent == master.pid]
        # The same configuration again, for its new processes: the old ones answer what they have, and end.
        master.ask(signal.SIGHUP)
        wait_for_end(before, DRAIN + 1)

    def close(self) -> bool:
        """End nginx, and what is left of it; return whether there was anything. Raises NotEnded."""
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
        """The first of its processes, None where that has ended."""
        return living(*self._known) if self._known is not None else None

    def family(self) -> list[Process]:
        """Return nginx's processes of this folder, the master first; its workers go on without it."""
        found = [one for one in processes() if one.name == PROGRAM and self._is_mine(one)]
        numbers = {one.pid for one in found}
        return sorted(found, key=lambda one: one.parent in numbers)

    @property
    def stopped(self) -> list[Process]:
        """Its processes that stand still, as by SIGSTOP."""
        if not self._seen or not all(lives(one) for one in self._seen):
            self._seen = self.family()
        now = (Process.of(one.pid) for one in self._seen)
        return [one for one in now if one is not None and one.state == STOPPED]

    def _link_tls(self, opening: Opening) -> None:
        """Show nginx the certificate and its key by names of ours. Raises UserError where one is missing."""
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
        if not self._config.exists():  # else it stays: what is left of another start may still have the port
            self._config.write_text(rendered(opening), encoding="utf-8")
            self._link_tls(opening)
        number = self.folder / "nginx.pid"
        number.unlink(missing_ok=True)
        self._nginx()
        # What was started writes its number down and starts its workers after the command has ended.
        stop = time.monotonic() + WRITING
        while (master := _process_in(number)) is None:
            if time.monotonic() > stop:
                raise UserError(f"nginx ended at once; see {self.folder / ERRORS}")
            time.sleep(POLL)
        self._started = master.pid, master.started, boot()
        with contextlib.suppress(OSError):  # no room: this process knows it, others see what nginx has open
            state_file.write(self._state, dict(zip(("pid", "started", "boot"), self._started, strict=True)))

    def _nginx(self) -> None:
        program = shutil.which(PROGRAM, path=PLACES)
        if program is None:
            raise UserError("nginx, the reverse proxy, is not installed; apt-get install nginx-light, "
                          "or serve this machine alone: make serve")  # fmt: skip
        command = [program, "-e", ERRORS, "-p", f"{self.folder}/", "-c", str(self._config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"nginx does not start: {done.stderr.strip()}")

    @property
    def _known(self) -> tuple[int, int, str] | None:
        """What is known of the master, the last one: number, start and boot."""
        if self._started is not None:
            return self._started
        state = state_file.read(self._state) or {}
        try:
            return int(state["pid"]), int(state["started"]), str(state["boot"])
        except (KeyError, TypeError, ValueError):
            return None

    def _is_mine(self, process: Process) -> bool:
        """Return whether an nginx is of this folder: it has the error log there open, deleted or not."""
        if (names := process.open_files) is not None:
            return any(name.startswith(f"{self.folder}/") for name in names)
        # Of nobody's processes root may not know it everywhere. They are in the session that the master
        # began, whose number goes to no other process while one of them lives.
        if self._known is None or process.session != self._known[0] or self._known[2] != boot():
            return False
        first = Process.of(process.session)
        return first is None or first.started == self._known[1]


def _process_in(file: Path) -> Process | None:
    """Return the process whose number stands in a file, None where there is none yet."""
    try:
        process = Process.of(int(file.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None
    return process if process is not None and lives(process) else None


def rendered(opening: Opening) -> str:
    """Return nginx's configuration for an opening."""
    values = {
        # Root alone can name another user, and alone should not answer strangers itself.
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
    """Return the addresses: all of the machine's, of IPv6 too where it has that."""
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
    """Return a path for nginx's double quotes. Raises UserError where nginx cannot take it."""
    text = str(path)
    if "$" in text or not text.isprintable():
        raise UserError(f"nginx cannot take the path {text!r}; set TMPDIR to a folder without $ in its name")
    return text.replace("\\", "\\\\").replace('"', '\\"')
