"""Which ports are free, and which process uses a port that is not."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

import psutil

from marctl.errors import UserError

LOOPBACK = "127.0.0.1"


def check_free(ports: Iterable[int]) -> None:
    """Raise UserError for the first port that is not free."""
    for port in ports:
        if (problem := why_not(port)) is not None:
            raise UserError(f"{problem}; serve on other ports: make serve PORT=9080")


def why_not(port: int, host: str = LOOPBACK) -> str | None:
    """Explain why no server can listen on this port; None if one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers set it: a port in TIME_WAIT is free, one with a listener is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"port {port} is taken by {holder(port)}"
            return f"port {port} of {host} cannot be opened ({error.strerror})"
    return None


def holder(port: int) -> str:
    """Name the process that listens on a port, as far as this user may see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        connections = []
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
        if listens and connection.pid:
            return _named(connection.pid)
    return "a process of another user"


def _named(pid: int) -> str:
    try:
        command = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return f"process {pid}"
    shown = 60
    return f"process {pid} ({command if len(command) <= shown else command[:shown] + '...'})"
