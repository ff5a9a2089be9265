"""Run a .mar in this process: the same files, loaded by TorchServe's own loader, without its server."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import late_torch
from mar import BadArchive, read_manifest, reading
from private_copy import private_copy

# Before TorchServe's modules, which import torch.
late_torch.install()

from ts.context import RequestProcessor  # noqa: E402
from ts.model_loader import TsModelLoader  # noqa: E402

OK, FAILED = 200, 500
# TorchServe's mark of a request for an explanation.
EXPLAIN = "explain"
# How torch.load reads weights is decided here and by torch: these would let it run what a pickle says.
LOADING = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD")


@dataclass(frozen=True)
class Answer:
    """What a client would get: HTTP status and body."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The body as TorchServe writes it: bytes and text as they are, all else as JSON."""
        if isinstance(self.body, bytes | bytearray):
            return bytes(self.body)
        text = self.body if isinstance(self.body, str) else json.dumps(self.body, indent=2)
        return text.encode("utf-8")

    @property
    def reason(self) -> str:
        """Why a request was refused: what came, and what to send; of another answer nothing."""
        if self.ok:
            return ""
        try:
            error = json.loads(self.content)["error"]
        except (ValueError, TypeError, KeyError):  # another project's handler
            return self.content.decode(errors="replace")
        return error if isinstance(error, str) else f"{error['message']}; {error['hint']}"

    @property
    def ok(self) -> bool:
        """Whether the request was answered and not refused."""
        return self.status == OK


class _Unmeasured:
    """Takes what handlers measure of themselves, and keeps none of it."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Engine:
    """An opened archive. Close it, or use it in a `with`: its files lie in a folder of their own."""

    def __init__(self, path: Path, public_key: Path | None = None) -> None:
        """Unpack a private copy of the archive and load it.

        With a public key, the copy must be signed with it. Raises BadArchive, with what its code raised, and
        BadKey.
        """
        for variable in LOADING:
            os.environ.pop(variable, None)
        self.path = path
        # Deleted at close, or at the latest when the process ends.
        self._folder = tempfile.TemporaryDirectory(prefix="archive-")
        try:
            self.folder = Path(self._folder.name).resolve()
            self.manifest = model = _unpacked(path, self.folder, public_key)["model"]
            with _only(self.folder):
                self._service = TsModelLoader().load(model["modelName"], str(self.folder), model["handler"])
            # Of a module with a function and no class there is no handler at all.
            self._handler = getattr(self._service._entry_point, "__self__", None)
            self.is_foreign = not hasattr(self._handler, "contract")
        except BadArchive:
            self.close()
            raise
        except Exception as error:  # noqa: BLE001 the archive's own code runs here
            self.close()
            # Where the handler cannot be imported TorchServe goes on to look for one of its own, and
            # complains that it has none of that name; the first error is the one that helps.
            first = error.__context__ if isinstance(error, ImportError) and error.__context__ else error
            raise BadArchive(f"{path} does not load: {type(first).__name__}: {first}") from first
        except BaseException:
            self.close()
            raise

    @property
    def handler(self) -> Any:
        """The archive's handler, loaded and initialized. Raises BadArchive where it is not this project's."""
        if self.is_foreign:
            raise BadArchive(
                f"the handler of {self.path} is not this project's, which this needs; answer images by it: "
                "make predict; serve it: make serve SEALED=no; or take it over: make adopt"
            )
        return self._handler  # TorchServe keeps the handler's bound method alone

    def predict(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Answer one batch: each of the bodies as if it had come alone by `curl -T`."""
        return self.answer([{"body": body} for body in bodies])

    def answer(
        self, rows: Sequence[dict[str, Any]], headers: Sequence[dict[str, Any]] | None = None
    ) -> list[Answer]:
        """Answer one batch of requests: their fields, and the HTTP headers that came with each.

        Several threads may do so at once.
        """
        if self.is_foreign:
            return [self._by_foreign(row) for row in rows]
        # The handler writes the statuses into the context: a shared one would mix up two threads' answers.
        context = copy.copy(self._service.context)
        context.request_processor = [RequestProcessor(h) for h in headers or [{} for _ in rows]]
        with _only(self.folder) if self._loads_more(headers or ()) else contextlib.nullcontext():
            bodies = self.handler.handle(list(rows), context)
        return [
            Answer(context.get_response_status(i)[0], body, context.get_response_headers(i))
            for i, body in enumerate(bodies)
        ]

    def _by_foreign(self, row: dict[str, Any]) -> Answer:
        """Answer one request by another project's handler, which fails all of a batch for one of them."""
        context = copy.copy(self._service.context)
        context.request_processor = [RequestProcessor({})]
        context.metrics = _Unmeasured()
        try:
            with _only(self.folder):  # it may import more at any time
                [body] = self._service._entry_point([row], context)
        except Exception as error:  # noqa: BLE001 the archive's own code runs here
            what = f"its handler fails: {type(error).__name__}: {error}"
            return Answer(FAILED, json.dumps({"error": {"message": what, "hint": "look at what it takes"}}))
        return Answer(context.get_response_status(0)[0], body, context.get_response_headers(0))

    def _loads_more(self, headers: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether a batch may have the handler load its reference: the first explanation does."""
        return "eager" not in vars(self.handler) and any(one.get(EXPLAIN) == "True" for one in headers)

    @property
    def eager(self) -> Any:
        """The class with its weights, the reference that all else is held to; loaded when first asked for."""
        with _only(self.folder):
            return self.handler.eager

    def check_eager(self) -> None:
        """Hold the reference to the golden answers, whatever answers else. Raises BadArchive."""
        try:
            with _only(self.folder):
                self.handler.check_eager()
        except Exception as error:  # the archive's own code runs here
            raise BadArchive(f"its reference does not hold: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Delete the unpacked files."""
        self._folder.cleanup()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unpacked(path: Path, folder: Path, public_key: Path | None) -> dict[str, Any]:
    """Unpack an archive into a folder, member by member, and return its manifest. Raises BadArchive."""
    # What was checked is what is unpacked, whoever replaces the file meanwhile.
    with private_copy(path, public_key) as own:
        manifest = read_manifest(own)
        with reading(own) as mar:
            mar.extractall(folder)
    return manifest


# sys.path and sys.modules belong to all threads.
_importing = threading.Lock()


@contextlib.contextmanager
def _only(folder: Path) -> Iterator[None]:
    """While an archive loads, let imports see it and what is installed, nothing else; leave no module.

    Two archives have modules of the same names, and a module left out of an archive must be missed
    even where the repository has it.
    """
    with _importing:
        yield from _isolated(folder)


def _isolated(folder: Path) -> Iterator[None]:
    # An environment may also see the packages of another: those of the system, or lent ones.
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    installed = [Path(path).resolve() for path in (*sysconfig.get_paths().values(), *packages)]
    hidden = {name: module for name, module in _loaded() if not _is_installed(module, installed)}
    path = sys.path
    for name in hidden:
        del sys.modules[name]
    sys.path = [str(folder), *(p for p in path if p and _is_below(Path(p).resolve(), installed))]
    try:
        yield
    finally:
        sys.path = path
        for name, module in _loaded():
            if _is_below(_file(module), [folder]):
                del sys.modules[name]
        sys.modules.update(hidden)


def _loaded() -> list[tuple[str, ModuleType]]:
    return list(sys.modules.items())


def _is_installed(module: ModuleType, installed: list[Path]) -> bool:
    file = _file(module)
    return module.__name__ == "__main__" or file is None or _is_below(file, installed)


def _file(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def _is_below(path: Path | None, folders: list[Path]) -> bool:
    return path is not None and any(path.is_relative_to(folder) for folder in folders)
