"""Run a program that reads or runs what strangers made, in a process apart; take nothing from it but bytes.

It has no network, sees none of the user's files and none of the environment, and all that it started ends
with it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from isolation import ARCHIVE, PROGRAM, WORK

STARTER = Path(__file__).with_name("isolation.py")
SECONDS = 300.0  # of the clock: loading takes 5, and a slow machine ten times as long
MOST_OUTPUT = 2**23  # bytes that it may answer
KEPT = 500  # bytes of what it said at last
BYTES_A_SECOND = 2**22  # of the archive: what a slow disk reads
GIB = 2**30
# What a program may see of the file system, besides Python's own folders.
SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/sys/devices/system",
)  # fmt: skip


class Stopped(RuntimeError):
    """The program gave no answer; the text says why, and may quote it."""


@functools.cache
def isolation_fault() -> str | None:
    """Return why a program cannot be isolated here; None where it can."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as scratch:
        try:
            _start(_Plan(STARTER, Path(scratch), ["-c", "pass"], isolate=True), b"")
        except Stopped as error:
            return str(error)
    return None


def run(program: Path, folder: Path, request: bytes) -> bytes:
    """Run a Python program on the files in a folder; return what it prints.

    The program gets the folder as its argument and the request as its input, and no module but those
    installed. Its memory, time and files are limited by what the folder's files take. Raises Stopped.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-") as scratch:
        isolate = isolation_fault() is None
        command = [PROGRAM, ARCHIVE] if isolate else [str(program), str(folder)]
        return _start(_Plan(program, Path(scratch), command, isolate=isolate, folder=folder), request)


class _Plan:
    """What isolation.py is told, and how long it may take."""

    def __init__(
        self, program: Path, scratch: Path, command: list[str], *, isolate: bool, folder: Path | None = None
    ) -> None:
        work, root = scratch / "work", scratch / "root"
        work.mkdir()
        root.mkdir()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder else 0
        self.isolate = isolate
        self.seconds = SECONDS + size / BYTES_A_SECOND
        self.place = WORK if isolate else str(work)
        self.text = json.dumps({
            "isolate": isolate,
            "command": command,
            "program": str(program),
            "folder": str(folder or work),
            "work": str(work),
            "root": str(root),
            "seen": [*SYSTEM, *_python()],
            "disk": GIB // 2 + 4 * size,
            "limits": _limits(size, self.seconds, isolate=isolate),
        })


def _start(plan: _Plan, request: bytes) -> bytes:
    environ = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": plan.place, "TMPDIR": plan.place, "LANG": "C.UTF-8",
        "USER": "nobody", "ORT_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    with tempfile.TemporaryFile() as file:
        file.write(request)
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", STARTER, plan.text], cwd="/", env=environ, stdin=file,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                output, words = _read(process, plan.seconds)
            finally:
                _end(process, isolate=plan.isolate)
    if process.returncode:
        raise Stopped(f"it ended the process ({process.returncode}): {words or 'it said nothing'}")
    return output


def _python() -> list[str]:
    """Return the folders in which this Python and its packages lie."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [sys.prefix, sys.exec_prefix, sys.base_prefix, *packages]


def _limits(size: int, seconds: float, *, isolate: bool) -> dict[str, int]:
    limits = {
        # Of each process. Not its addresses: torch reserves many times what it uses.
        "RLIMIT_DATA": 4 * GIB + 8 * size,
        "RLIMIT_FSIZE": GIB // 2 + 4 * size,
        "RLIMIT_CPU": int(seconds) * (os.cpu_count() or 1),
        "RLIMIT_NOFILE": 1024,
        "RLIMIT_CORE": 0,
    }
    # A namespace counts its own; elsewhere all of the user's would count.
    return limits | ({"RLIMIT_NPROC": 1024} if isolate else {})


def _read(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, str]:
    """Return what the process prints, and its last words. Raises Stopped where it takes too long or much."""
    output, words = bytearray(), b""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            assert stream is not None  # noqa: S101 both are pipes
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if (left := end - time.monotonic()) <= 0:
                raise Stopped(f"it did not end within {seconds:.0f} s")
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 2**16)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    output += chunk
                    if len(output) > MOST_OUTPUT:
                        raise Stopped(f"it answered more than {MOST_OUTPUT:,} bytes")
                else:
                    words = (words + chunk)[-KEPT:]
    return bytes(output), words.decode("utf-8", errors="replace").strip()


def _end(process: subprocess.Popen[bytes], *, isolate: bool) -> None:
    """End the process and all that it started."""
    if isolate and process.poll() is None:
        process.send_signal(signal.SIGTERM)  # it kills the first process of the namespace, and so the others
        process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
