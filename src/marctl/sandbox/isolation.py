"""Start a Python program in isolation: the child process's half of sandbox.py.

The program gets its own user, mount, network, process and IPC namespaces, a read-only file system with only
Python and the system's libraries, one empty folder to write to, and limits. This module needs only the
standard library, and no privileges if the kernel allows user namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

# Paths inside the sandbox: the archive's files, the program, and the folder that it may write to.
ARCHIVE, PROGRAM, WORK = (f"/sandbox/{name}" for name in ("archive", "program.py", "work"))
MODULES = "/sandbox/modules{}"  # and numbered folders of Python files
NOT_ISOLATED = 99  # the exit status if the kernel refuses

# From Linux's headers; Python names some of them from 3.12 on, and others not at all.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE, MOUNT_SETATTR = -100, 0x8000, 442
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
# The user id inside, nobody's; the kernel maps the files that it makes to the real user. Not 0: a user other
# than root loses all capabilities on exec.
INSIDE = 65534

libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    """The argument of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]


def main() -> int:
    """Run the plan in the first argument; return the program's exit status."""
    plan = json.loads(sys.argv[1])
    if not plan["isolate"]:
        os.chdir(plan["work"])
        _become(plan)
    try:
        _unshare()
    except OSError as error:
        print(error, file=sys.stderr)
        return NOT_ISOLATED
    if (child := os.fork()) == 0:
        # The first process of its namespace: all others end when it does.
        try:
            _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
            _enter_root(plan)
            _become(plan)
        except OSError as error:
            print(error, file=sys.stderr)
        os._exit(NOT_ISOLATED)
    return _wait(child)


def _wait(child: int) -> int:
    def end(_: int, __: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has already ended
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    # The kernel sends SIGTERM when the parent process ends, for whatever reason.
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    _call(
        "unshare",
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS,
    )
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{INSIDE} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{INSIDE} {group} 1", encoding="ascii")
    # In a further namespace of its own, a program would have all capabilities again.
    with contextlib.suppress(OSError):  # /proc/sys may be read-only
        Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="ascii")


def _enter_root(plan: dict[str, Any]) -> None:
    """Build a read-only file system of what the program may see, and make it the root."""
    root = Path(plan["root"])
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for path in _outermost(plan["seen"]):
        _show(path, root / path.relative_to("/"))
    _show(Path(plan["folder"]), root / ARCHIVE[1:])
    _show(Path(plan["program"]), root / PROGRAM[1:])
    for number, modules in enumerate(plan["modules"]):
        _show(Path(modules), root / MODULES.format(number)[1:])
    work, proc = root / WORK[1:], root / "proc"
    work.mkdir()
    proc.mkdir()
    if not (root / "tmp").exists():  # it exists if the environment itself is below /tmp; it is read-only then
        (root / "tmp").symlink_to(WORK)
    _mount("proc", proc, "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    attributes = MountAttributes(set=MS_RDONLY | MS_NOSUID)
    _call(
        "syscall", MOUNT_SETATTR, AT_FDCWD, os.fsencode(root), AT_RECURSIVE,
        ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)),
    )  # fmt: skip
    _mount("tmpfs", work, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=700,size={plan['disk']}")
    os.chdir(root)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)
    os.chdir(WORK)


def _outermost(paths: Iterable[str]) -> list[Path]:
    """Return the existing paths that are not below another one of them."""
    found: list[Path] = []
    for path in sorted(map(Path, paths)):
        if path.exists() and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def _show(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and path.parent == Path("/"):  # /lib, mostly
        place.symlink_to(path.readlink())
        return
    if path.is_dir():
        place.mkdir()
    else:
        place.touch()
    _mount(path, place, None, MS_BIND | MS_REC)


def _become(plan: dict[str, Any]) -> None:
    """Set the limits, and exec the program."""
    for name, most in plan["limits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-I", "-B", *plan["command"]])  # noqa: S606 no shell is wanted


def _mount(
    source: str | Path | None, place: str | Path, kind: str | None, flags: int, options: str = ""
) -> None:
    named = [value and os.fsencode(value) for value in (source, place, kind)]
    _call("mount", *named, ctypes.c_ulong(flags), options.encode())


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C library. Raises OSError."""
    if getattr(libc, name)(*arguments) == -1:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


if __name__ == "__main__":
    sys.exit(main())
