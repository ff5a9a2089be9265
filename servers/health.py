"""Whether a server is live and ready, told on a Unix socket: the truth, which TorchServe's /ping is not."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from instance import Served
from status_pages import DOOR, READY, Page, State, in_form_of, page

# Seconds for which what was seen counts; it is looked at once a second.
FRESH = 5.0
EVERYBODY = 0o666  # nginx's processes run as nobody where root starts it


class Health:
    """What is known of the server, and when it was seen; `models` returns what it serves."""

    def __init__(self, models: Callable[[], Iterable[Served]] = tuple) -> None:
        self.models = models
        self._live = False
        self._reason: str | None = "it is starting"
        self._seen = time.monotonic()

    def saw(self, fault: str | None, *, live: bool = True) -> None:
        """Take down what was seen: what is not well, if anything, and whether the process lives."""
        self._live, self._reason, self._seen = live, fault, time.monotonic()

    @property
    def fault(self) -> str | None:
        """Why the server is not ready; None where it is."""
        age = time.monotonic() - self._seen
        if self._reason is None and age > FRESH:
            return f"nobody has looked at it for {age:.0f} seconds"
        return self._reason

    def answer(self, path: str) -> Page:
        """Return the status and the body for a path."""
        return in_form_of(path, page(path, State(DOOR, self._live, self.fault, self.models)))


def serve(health: Health, path: Path) -> None:
    """Answer on a Unix socket, in threads of their own, for as long as this process lives."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = health.answer(self.path)
            data = (json.dumps(body) + "\n").encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *words: object) -> None:  # noqa: A002 its name there
            """Say nothing: it is asked once a second."""

    server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
    server.daemon_threads = True
    path.chmod(EVERYBODY)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def is_ready(path: Path) -> bool:
    """Ask a health socket whether the server is ready. Raises OSError where nobody answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(FRESH)
        connection.connect(str(path))
        connection.sendall(f"GET {READY} HTTP/1.0\r\n\r\n".encode())
        return f" {HTTPStatus.OK} " in connection.makefile(encoding="utf-8").read().partition("\n")[0]
