"""What a running supervisor is asked to do: JSON lines on a Unix socket that its own user alone can open."""

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
    """What is asked for: archives to serve, whether they must be sealed, and by which key signed."""

    archives: list[Path]
    sealed: bool = True
    public_key: Path | None = None


Say = Callable[[str], None]
Deploy = Callable[[Asked, Say], None]


def serve(folder: Path, deploy: Deploy) -> None:
    """Take requests on a socket in a new folder, in threads of their own, until this process ends."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                asked = json.loads(self.rfile.readline())
                key = asked["public_key"]
                archives = [Path(archive) for archive in asked["archives"]]
                deploy(Asked(archives, asked["sealed"], Path(key) if key else None), self._say)
            except Exception as error:  # noqa: BLE001 whatever it is, who asked has to hear of it
                self._tell(FAILED, str(error))

        def _say(self, sentence: str) -> None:
            self._tell(SAID, sentence)

        def _tell(self, kind: str, sentence: str) -> None:
            say(sentence)
            with contextlib.suppress(OSError):  # who asked has gone; what was begun goes on
                self.wfile.write(json.dumps({kind: sentence}).encode() + b"\n")

    folder.mkdir(OWNER_ALONE)
    server = socketserver.ThreadingUnixStreamServer(str(folder / SOCKET), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(folder: Path, asked: Asked, say: Say) -> None:
    """Ask the supervisor of a folder to serve other archives, and pass on what it says. Raises UserError."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(folder / SOCKET))
        except OSError as error:
            raise UserError(f"the supervisor does not answer ({error.strerror}); ask make status") from error
        told = {
            "archives": [str(one.resolve()) for one in asked.archives],
            "sealed": asked.sealed,
            "public_key": str(asked.public_key.resolve()) if asked.public_key else None,
        }
        connection.sendall(json.dumps(told).encode() + b"\n")
        for line in connection.makefile(encoding="utf-8"):
            message = json.loads(line)
            if FAILED in message:
                raise UserError(message[FAILED])
            say(message[SAID])
