"""A real Flask server in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import MARCTL, ROOT, free_port
from tests.support.waiting import PATIENCE

LAST_LINE = "  stop "


@dataclass(frozen=True)
class Flask:
    """A running server: its address, its main process and what it printed at startup."""

    url: str
    process: subprocess.Popen[str]
    printed: list[str]

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Stop it and return its exit status."""
        self.process.send_signal(with_signal)
        return self.process.wait(PATIENCE)


def command(archive: Path, *options: str) -> list[str]:
    """Return the command that serves an archive."""
    return [*MARCTL, "flask", str(archive), *options]


@contextmanager
def flask_of(archive: Path, *options: str, **environ: str) -> Iterator[Flask]:
    """Serve an archive on a free port."""
    port = free_port()
    env = {k: v for k, v in os.environ.items() if k != "EXPLAIN"} | environ
    with subprocess.Popen(
        command(archive, "--port", str(port), *options), cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            printed = []
            while not any(line.startswith(LAST_LINE) for line in printed):
                line = process.stdout.readline()
                assert line, "the server ended before it was ready"
                printed.append(line)
            yield Flask(f"http://127.0.0.1:{port}", process, printed)
        finally:
            process.terminate()


def refused(archive: Path, *options: str) -> str:
    """Return the one-line error of a server that cannot start."""
    done = subprocess.run(
        command(archive, *options), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    return line
