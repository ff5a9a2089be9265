"""The front door: an nginx before TorchServe that lets in pictures, has a page for them, and no more."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

import page_files
from ports import why_not
from process_end import end, wait_for_end

TEMPLATE = Path(__file__).resolve().parents[1] / "deploy" / "nginx.conf"
PLACE = re.compile(r"@([A-Z]+)@")
PROGRAM = "nginx"
# Where Debian puts it; a user's PATH often has no sbin.
PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
# Seconds in which what was taken in is answered at a stop.
DRAIN = 8
# Seconds after which a client may ask again; a server that died is back after three (docs/faults.md).
RETRY = 2
ROOT = 0
HEALTH_SOCKET = "health"
SWITCH, CLOSED = "twin-answers", "closed"


class BadDoor(RuntimeError):
    """A front door that cannot be opened; the text says what nginx said, or what to install or change."""


@dataclass(frozen=True)
class Opening:
    """What a front door lets in, and where it leads."""

    port: int
    inference: str    # TorchServe's address
    twin: str         # that of another version beside it
    scratch: Path     # for bodies under way; the socket that answers /health lies in it, and the page
    body: int         # bytes that a request may have
    answer: int       # seconds in which a prediction is answered
    rate: int         # requests a second from one address
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


class FrontDoor:
    """One nginx in a folder of its own: its configuration, its processes, its error log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._config = self.folder / "nginx.conf"

    def open(self, opening: Opening) -> None:
        """Start nginx. Raises BadDoor where it is not installed, or refuses."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._config.write_text(rendered(opening), encoding="utf-8")
        page_files.lay_out(opening.scratch)
        self._nginx()

    def refuse(self, opening: Opening) -> None:
        """Answer every new prediction by 503; return when those under way are answered, or DRAIN is over."""
        if (master := self._master()) is None:
            return
        before = master.children()
        opening.closed.touch()
        # The same configuration again, for its new processes: the old ones answer what they have, and end.
        self._nginx("-s", "reload")
        wait_for_end(before, DRAIN + 1)

    def close(self) -> None:
        """End nginx, if it runs."""
        if (master := self._master()) is None:
            return
        family = [master, *master.children()]
        master.send_signal(signal.SIGQUIT)
        end(family, DRAIN + 1)

    def _nginx(self, *words: str) -> None:
        program = shutil.which(PROGRAM, path=PLACES)
        if program is None:
            raise BadDoor("nginx, the front door, is not installed; apt-get install nginx-light, "
                          "or serve this machine alone: make serve")  # fmt: skip
        options = ["-e", "error.log", "-p", f"{self.folder}/", "-c", str(self._config)]
        done = subprocess.run([program, *options, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BadDoor(f"nginx does not start: {done.stderr.strip()}")

    def _master(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int((self.folder / "nginx.pid").read_text(encoding="ascii")))
            # A pid alone may have gone to another process.
            return process if str(self.folder) in " ".join(process.cmdline()) else None
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None


def rendered(opening: Opening) -> str:
    """Return nginx's configuration for an opening."""
    values = {
        # Root alone can name another user, and alone should not answer strangers itself.
        "USER": "user nobody nogroup;" if os.geteuid() == ROOT else "",
        "DRAIN": DRAIN,
        "SCRATCH": opening.scratch,
        "RATE": opening.rate,
        "CONNECTIONS": opening.connections,
        "INFERENCE": urlsplit(opening.inference).netloc,
        "TWIN": urlsplit(opening.twin).netloc,
        "SWITCH": opening.switch,
        "HEALTH": opening.health,
        "LISTEN": _listen(opening),
        "TLS": _tls(opening),
        "BODY": opening.body,
        "CLOSED": opening.closed,
        "ANSWER": opening.answer,
        "RETRY": RETRY,
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
    return (
        f'ssl_certificate "{opening.certificate.resolve()}"; '
        f'ssl_certificate_key "{opening.key.resolve()}"; ssl_protocols TLSv1.2 TLSv1.3;'
    )
