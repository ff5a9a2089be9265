"""Answer images by another project's archive: its handler runs in a process of its own, as in TorchServe.

    python -P foreign.py FOLDER NAME HANDLER

This file is both halves. As a program it loads the handler by TorchServe's own loader, from the unpacked
archive in FOLDER, and answers lines of JSON on its input by lines of JSON. There the archive's modules may
have any names and may import more at any time.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

OK = 200


@dataclass(frozen=True)
class ForeignAnswer:
    """What a client of TorchServe would get: a status and a body."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """Whether the handler answered."""
        return self.status == OK

    @property
    def reason(self) -> str:
        """Why it did not."""
        return "" if self.ok else str(self.body)


class Foreign:
    """An archive whose handler is not this project's, and the process that it runs in."""

    def __init__(self, path: Path, public_key: Path | None = None) -> None:
        """Unpack a private copy, and start the process. Raises BadArchive where the handler does not load."""
        from marctl.archive.mar import BadArchive
        from marctl.archive.opened import LOADING, unpack

        self._folder = tempfile.TemporaryDirectory(prefix="archive-")
        try:
            model = unpack(path, Path(self._folder.name), public_key)
            environ = {name: value for name, value in os.environ.items() if name not in LOADING}
            named = (self._folder.name, model["modelName"], model["handler"])
            command = [sys.executable, "-P", __file__, *named]
            self._process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._to = cast("IO[str]", self._process.stdin)  # pipes, as was asked for
            self._from = cast("IO[str]", self._process.stdout)
            fault = self._line()["fault"]
        except BaseException:
            self.close()
            raise
        if fault is not None:
            self.close()
            raise BadArchive(f"{path} does not load: {fault}")

    def predict(self, bodies: Sequence[bytes]) -> list[ForeignAnswer]:
        """Answer image files one by one: such a handler fails all of a batch for one of them."""
        return [self._answer(body) for body in bodies]

    def close(self) -> None:
        """End the process, and delete the unpacked files."""
        if (process := getattr(self, "_process", None)) is not None:
            process.kill()
            process.communicate()
        self._folder.cleanup()

    def _answer(self, body: bytes) -> ForeignAnswer:
        with contextlib.suppress(BrokenPipeError):  # it has ended, as is read below
            self._to.write(base64.b64encode(body).decode("ascii") + "\n")
            self._to.flush()
        told = self._line()
        return ForeignAnswer(told.get("status", 0), told["fault"] if told["fault"] else told.get("body"))

    def _line(self) -> dict[str, Any]:
        line = self._from.readline()
        if not line:
            return {"fault": f"its process ended with status {self._process.wait()}"}
        told: dict[str, Any] = json.loads(line)
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Unmeasured:
    """Takes what handlers measure of themselves, and keeps none of it."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def main(folder: str, name: str, handler: str) -> None:
    """Answer every line of the input."""
    # What the archive prints is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.path.insert(0, folder)  # as TorchServe has it in a worker
    try:
        service = _loaded(folder, name, handler)
    except Exception as error:  # noqa: BLE001 the archive's own code runs here
        # Where the handler cannot be imported TorchServe goes on to look for one of its own, and complains
        # that it has none of that name; the first error is the one that helps.
        first = error.__context__ if isinstance(error, ImportError) and error.__context__ else error
        return _say(answers, fault=f"{type(first).__name__}: {first}")
    _say(answers, fault=None)
    for line in sys.stdin:
        _answer_to(answers, service, base64.b64decode(line))
    return None


def _loaded(folder: str, name: str, handler: str) -> Any:
    from ts.model_loader import TsModelLoader

    return TsModelLoader().load(name, folder, handler)


def _answer_to(answers: IO[str], service: Any, body: bytes) -> None:
    from ts.context import RequestProcessor

    context = service.context
    context.request_processor, context.metrics = [RequestProcessor({})], _Unmeasured()
    try:
        [answer] = service._entry_point([{"body": body}], context)
    except Exception as error:  # noqa: BLE001 the archive's own code runs here
        return _say(answers, fault=f"its handler fails: {type(error).__name__}: {error}")
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes | bytearray) else answer
    return _say(answers, fault=None, status=context.get_response_status(0)[0], body=text)


def _say(answers: IO[str], **told: Any) -> None:
    answers.write(json.dumps(told, default=str) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
