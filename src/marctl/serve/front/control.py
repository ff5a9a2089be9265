"""Commands for a running supervisor: JSON lines on a Unix socket that only its own user can open."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from marctl.errors import UserError
from marctl.output import say

OWNER_ALONE = 0o700
SOCKET = "socket"
SAID, FAILED = "said", "failed"


@dataclass(frozen=True)
class Asked:
    """The archives to serve, whether they must be sealed, and the key that must have signed them."""

    archives: list[Path]
    sealed: bool = True
    public_key: Path | None = None


Say = Callable[[str], None]
Deploy = Callable[[Asked, Say], None]


def serve(folder: Path, deploy: Deploy) -> None:
    """Take commands on a socket in a new folder, in threads, until this process ends."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                asked = json.loads(self.rfile.readline())
                key = asked["public_key"]
                archives = [Path(archive) for archive in asked["archives"]]
                deploy(Asked(archives, asked["sealed"], Path(key) if key else None), self._say)
            except Exception as error:  # noqa: BLE001 whatever it is, the client must receive it
                self._tell(FAILED, str(error))

        def _say(self, sentence: str) -> None:
            self._tell(SAID, sentence)

        def _tell(self, kind: str, sentence: str) -> None:
            say(sentence)
            with contextlib.suppress(OSError):  # the client has disconnected; finish the deployment anyway
                self.wfile.write(json.dumps({kind: sentence}).encode() + b"\n")

    folder.mkdir(OWNER_ALONE)
    server = socketserver.ThreadingUnixStreamServer(str(folder / SOCKET), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(folder: Path, asked: Asked, say: Say) -> None:
    """Ask a supervisor to serve other archives, and pass its messages to `say`. Raises UserError."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(folder / SOCKET))
        except OSError as error:
            raise UserError(f"the supervisor does not answer ({error.strerror}); see make status") from error
        request = {
            "archives": [str(one.resolve()) for one in asked.archives],
            "sealed": asked.sealed,
            "public_key": str(asked.public_key.resolve()) if asked.public_key else None,
        }
        connection.sendall(json.dumps(request).encode() + b"\n")
        for line in connection.makefile(encoding="utf-8"):
            message = json.loads(line)
            if FAILED in message:
                raise UserError(message[FAILED])
            say(message[SAID])
