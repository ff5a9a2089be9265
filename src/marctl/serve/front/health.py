"""Report on a Unix socket whether a server is live and ready; TorchServe's /ping is not reliable."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

from marctl.serve.status_pages import DOOR, READY, Page, State, in_form_of, page
from marctl.serve.torchserve.instance import Served

# Seconds for which a check's result is valid; there is one every second.
FRESH = 5.0
EVERYBODY = 0o666  # nginx's workers run as nobody if root starts it


class Health:
    """The result of the last check of the server, and its time; `models` returns what it serves."""

    def __init__(self, models: Callable[[], Iterable[Served]] = tuple) -> None:
        self.models = models
        self._live = False
        self._reason: str | None = "it is starting"
        self._seen = time.monotonic()
        self.proxy_fault: str | None = None  # why clients cannot reach it, if they cannot

    def saw(self, fault: str | None, *, live: bool = True) -> None:
        """Record a check's result: the fault, if any, and whether the process is alive."""
        self._live, self._reason, self._seen = live, fault, time.monotonic()

    @property
    def fault(self) -> str | None:
        """Why the server is not ready; None if it is."""
        age = time.monotonic() - self._seen
        if self._reason is None and age > FRESH:
            return f"it was last checked {age:.0f} seconds ago"
        return self._reason or self.proxy_fault

    def answer(self, path: str) -> Page:
        """Return the status and the body for a path."""
        return in_form_of(path, page(path, State(DOOR, self._live, self.fault, self.models)))


def serve(health: Health, path: Path) -> None:
    """Answer on a Unix socket, in threads, until this process ends."""

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
            """Log nothing: there is a request every second."""

    server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
    server.daemon_threads = True
    path.chmod(EVERYBODY)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def is_ready(path: Path) -> bool:
    """Ask a health socket whether the server is ready. Raises OSError if nothing answers."""
    return fault_at(path) is None


def fault_at(path: Path) -> str | None:
    """Ask a health socket why the server is not ready; None if it is. Raises OSError."""
    connection = HTTPConnection("localhost", timeout=FRESH)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(FRESH)
    with contextlib.closing(connection):
        connection.sock.connect(str(path))
        return _fault_in(*_get(connection, READY))


def fault_through(address: str, path: Path) -> str | None:
    """Ask through a proxy why the server is not ready; None if it is. Raises what `ask` raises.

    `path` is the health socket behind it, used if the proxy answers 429.
    """
    status, body = ask(address)
    return fault_at(path) if status == HTTPStatus.TOO_MANY_REQUESTS else _fault_in(status, body)


def ask(address: str, path: str = READY, patience: float = FRESH) -> tuple[int, bytes]:
    """Return the status and the body of a response, without checking the certificate.

    Raises OSError if nothing answers within `patience` seconds, or the answer is not HTTP.
    """
    parts = urlsplit(address)
    host, port = str(parts.hostname), parts.port
    if parts.scheme == "https":
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE  # our own server
        with contextlib.closing(HTTPSConnection(host, port, timeout=patience, context=trusting)) as secure:
            return _get(secure, path)
    with contextlib.closing(HTTPConnection(host, port, timeout=patience)) as connection:
        return _get(connection, path)


def _get(connection: HTTPConnection, path: str) -> tuple[int, bytes]:
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except HTTPException as error:
        raise ConnectionError(f"the answer is not HTTP ({type(error).__name__})") from error


def _fault_in(status: int, body: bytes) -> str | None:
    if status == HTTPStatus.OK:
        return None
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return f"status {status}"
