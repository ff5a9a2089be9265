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
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from marctl.sandbox.isolation import ARCHIVE, MODULES, PROGRAM, WORK

STARTER = Path(__file__).with_name("isolation.py")
SECONDS = 300.0  # of the clock: loading takes 5, and a slow machine ten times as long
LAST = 60.0  # after it closed what it prints on
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


class NoAnswer(RuntimeError):
    """The program gave no answer; the text says why, and may quote it."""


@dataclass(frozen=True)
class _Plan:
    """What is run, on what, where it may write, and in how many bytes of memory."""

    program: Path
    folder: Path
    scratch: Path
    memory: int
    isolate: bool
    modules: tuple[Path, ...] = ()

    @cached_property
    def size(self) -> int:
        """The bytes of the folder's files."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    @property
    def seconds(self) -> float:
        """How long it may take."""
        return SECONDS + self.size / BYTES_A_SECOND

    def text(self, command: list[str]) -> str:
        """Return it as isolation.py reads it."""
        work, root = self.scratch / "work", self.scratch / "root"
        for folder in (work, root):
            folder.mkdir()
        return json.dumps(
            {
                "isolate": self.isolate,
                "command": command,
                "program": str(self.program),
                "modules": list(map(str, self.modules)),
                "folder": str(self.folder),
                "work": str(work),
                "root": str(root),
                "seen": [*SYSTEM, *_python()],
                "disk": GIB // 2 + 4 * self.size,
                "limits": self._limits(),
            }
        )

    def _limits(self) -> dict[str, int]:
        limits = {
            # Not all addresses: torch reserves many times what it uses.
            "RLIMIT_DATA": self.memory,
            "RLIMIT_FSIZE": GIB // 2 + 4 * self.size,
            "RLIMIT_CPU": int(self.seconds) * (os.cpu_count() or 1),
            "RLIMIT_NOFILE": 1024,
            "RLIMIT_CORE": 0,
        }
        # A namespace counts its own; elsewhere all of the user's would count.
        return limits | ({"RLIMIT_NPROC": 1024} if self.isolate else {})


@functools.cache
def isolation_fault() -> str | None:
    """Return why a program cannot be isolated here; None where it can."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as scratch:
        try:
            nothing = Path(scratch) / "nothing"
            nothing.mkdir()
            _start(_Plan(STARTER, nothing, Path(scratch), GIB, isolate=True), ["-c", "pass"], b"")
        except NoAnswer as error:
            return str(error)
    return None


def to_parse(size: int) -> int:
    """Return the bytes that parsing may take: torch's import takes 700 MB, and each file is read once."""
    return 3 * GIB // 2 + 2 * size


def run(program: Path, folder: Path, request: bytes, memory: int, modules: Iterable[Path] = ()) -> bytes:
    """Run a Python program on the files in a folder; return what it prints.

    The program gets the folder as its argument and the request as its input, and no module but those
    installed and those in the folders `modules`, which are its further arguments. Each of its processes may
    have `memory` bytes; what the folder's files take limits its time and its own files. Raises NoAnswer.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-") as scratch:
        isolate = isolation_fault() is None
        # It runs in another folder than this process.
        program, folder, *modules = (path.resolve() for path in (program, folder, *modules))
        plan = _Plan(program, folder, Path(scratch), memory, isolate, tuple(modules))
        seen = [MODULES.format(number) for number in range(len(modules))]
        command = [PROGRAM, ARCHIVE, *seen] if isolate else [*map(str, (program, folder, *modules))]
        return _start(plan, command, request)


def _start(plan: _Plan, command: list[str], request: bytes) -> bytes:
    place = WORK if plan.isolate else str(plan.scratch / "work")
    environ = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": place, "TMPDIR": place, "LANG": "C.UTF-8",
        "USER": "nobody", "ORT_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    with tempfile.TemporaryFile() as file:
        file.write(request)
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", STARTER, plan.text(command)], cwd="/", env=environ, stdin=file,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                output, words = _read(process, plan.seconds)
                process.wait(LAST)  # it has closed what it prints on, and ends
            except subprocess.TimeoutExpired as error:
                raise NoAnswer("it printed no more, and did not end") from error
            finally:
                _end(process, isolate=plan.isolate)
    if process.returncode:
        raise NoAnswer(f"it ended the process ({process.returncode}): {words or 'it said nothing'}")
    return output


def _python() -> list[str]:
    """Return the folders in which this Python and its packages lie."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [sys.prefix, sys.exec_prefix, sys.base_prefix, *packages]


def _read(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, str]:
    """Return what the process prints, and its last words. Raises NoAnswer where it takes too long or much."""
    output, words = bytearray(), b""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for stream in filter(None, (process.stdout, process.stderr)):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if (left := end - time.monotonic()) <= 0:
                raise NoAnswer(f"it did not end within {seconds:.0f} s")
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 2**16)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    output += chunk
                    if len(output) > MOST_OUTPUT:
                        raise NoAnswer(f"it answered more than {MOST_OUTPUT:,} bytes")
                else:
                    words = (words + chunk)[-KEPT:]
    # Of a traceback the last line says what it was.
    said = words.decode("utf-8", errors="replace").strip().splitlines()
    return bytes(output), said[-1] if said else ""


def _end(process: subprocess.Popen[bytes], *, isolate: bool) -> None:
    """End the process and all that it started."""
    if isolate and process.poll() is None:
        process.send_signal(signal.SIGTERM)  # it kills the first process of the namespace, and so the others
        process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
