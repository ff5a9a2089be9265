"""Run a program that parses or runs untrusted files, in a separate process that returns only bytes.

The process has no network, none of the user's files and none of the environment. Everything that it started
ends with it.
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
SECONDS = 300.0  # wall time: loading takes 5, a slow machine ten times as long
LAST = 60.0  # seconds to end after it closed its output
MOST_OUTPUT = 2**23  # bytes of its answer
KEPT = 500  # last bytes of its stderr
BYTES_A_SECOND = 2**22  # of the archive: the speed of a slow disk
GIB = 2**30
# What a program may see of the file system, besides Python's own folders.
SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/sys/devices/system",
)  # fmt: skip


class NoAnswer(RuntimeError):
    """The program gave no answer; the message says why, and may quote the program."""


@dataclass(frozen=True)
class _Plan:
    """What to run, on which files, where it may write, and its memory in bytes."""

    program: Path
    folder: Path
    scratch: Path
    memory: int
    isolate: bool
    modules: tuple[Path, ...] = ()

    @cached_property
    def size(self) -> int:
        """The size of the folder's files in bytes."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    @property
    def seconds(self) -> float:
        """The time limit in seconds."""
        return SECONDS + self.size / BYTES_A_SECOND

    def text(self, command: list[str]) -> str:
        """Return the plan as JSON for isolation.py."""
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
            # Not RLIMIT_AS: torch reserves many times the address space that it uses.
            "RLIMIT_DATA": self.memory,
            "RLIMIT_FSIZE": GIB // 2 + 4 * self.size,
            "RLIMIT_CPU": int(self.seconds) * (os.cpu_count() or 1),
            "RLIMIT_NOFILE": 1024,
            "RLIMIT_CORE": 0,
        }
        # A namespace counts only its own processes; without one, all of the user's would count.
        return limits | ({"RLIMIT_NPROC": 1024} if self.isolate else {})


@functools.cache
def isolation_fault() -> str | None:
    """Return why programs cannot be isolated here, or None if they can."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as scratch:
        try:
            nothing = Path(scratch) / "nothing"
            nothing.mkdir()
            _start(_Plan(STARTER, nothing, Path(scratch), GIB, isolate=True), ["-c", "pass"], b"")
        except NoAnswer as error:
            return str(error)
    return None


def to_parse(size: int) -> int:
    """Return the memory for parsing, in bytes: torch's import takes 700 MB, and each file is read once."""
    return 3 * GIB // 2 + 2 * size


def run(program: Path, folder: Path, request: bytes, memory: int, modules: Iterable[Path] = ()) -> bytes:
    """Run a Python program on the files in a folder; return what it prints.

    The program gets the folder as its first argument and the request on stdin. It can import only installed
    modules and those in the folders `modules`, which are its further arguments. Each of its processes may use
    `memory` bytes; the limits on its time and its own files grow with the folder's size. Raises NoAnswer.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-") as scratch:
        isolate = isolation_fault() is None
        # Absolute, because the program runs in another folder.
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
                process.wait(LAST)  # it has closed its output, so it should end
            except subprocess.TimeoutExpired as error:
                raise NoAnswer("it closed its output but did not end") from error
            finally:
                _end(process, isolate=plan.isolate)
    if process.returncode:
        raise NoAnswer(f"its process exited with status {process.returncode}: {words or 'no message'}")
    return output


def _python() -> list[str]:
    """Return the folders of this Python and its packages."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [sys.prefix, sys.exec_prefix, sys.base_prefix, *packages]


def _read(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, str]:
    """Return the process's stdout, and the last line of its stderr. Raises NoAnswer above a limit."""
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
    # The last line of a traceback has the error.
    said = words.decode("utf-8", errors="replace").strip().splitlines()
    return bytes(output), said[-1] if said else ""


def _end(process: subprocess.Popen[bytes], *, isolate: bool) -> None:
    """End the process and everything that it started."""
    if isolate and process.poll() is None:
        process.send_signal(signal.SIGTERM)  # it kills the first process of the namespace, and so all others
        process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
