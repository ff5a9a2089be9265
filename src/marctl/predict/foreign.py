"""Answer images with another project's archive: its handler runs in its own process, as in TorchServe.

    python -P foreign.py FOLDER NAME HANDLER

This file is both halves. As a program it loads the handler with TorchServe's own loader, from the unpacked
archive in FOLDER, and answers each line of its input, an image in base64, with a line of JSON. In its own
process, the archive's modules may have any names and may import more at any time.
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
    """What TorchServe would send a client: a status and a body."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """Whether the handler answered."""
        return self.status == OK

    @property
    def reason(self) -> str:
        """Why it did not answer."""
        return "" if self.ok else str(self.body)


class Foreign:
    """An archive whose handler is not this project's, and the process that it runs in."""

    def __init__(self, path: Path, public_key: Path | None = None) -> None:
        """Unpack a private copy and start the process. Raises BadArchive if the handler does not load."""
        from marctl.archive.mar import BadArchive
        from marctl.archive.opened import LOADING, unpack
        from marctl.extras import need_torch

        need_torch("torch")  # TorchServe's own handlers import it
        self._folder = tempfile.TemporaryDirectory(prefix="archive-")
        try:
            model = unpack(path, Path(self._folder.name), public_key)
            environ = {name: value for name, value in os.environ.items() if name not in LOADING}
            names = (self._folder.name, model["modelName"], model["handler"])
            command = [sys.executable, "-P", __file__, *names]
            self._process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._to = cast("IO[str]", self._process.stdin)  # pipes, as requested above
            self._from = cast("IO[str]", self._process.stdout)
            fault = self._read()["fault"]
        except BaseException:
            self.close()
            raise
        if fault is not None:
            self.close()
            raise BadArchive(f"{path} does not load: {fault}")

    def predict(self, bodies: Sequence[bytes]) -> list[ForeignAnswer]:
        """Answer image files one by one: one bad image would fail such a handler's whole batch."""
        return [self._answer(body) for body in bodies]

    def close(self) -> None:
        """End the process, and delete the unpacked files."""
        if (process := getattr(self, "_process", None)) is not None:
            process.kill()
            process.communicate()
        self._folder.cleanup()

    def _answer(self, body: bytes) -> ForeignAnswer:
        with contextlib.suppress(BrokenPipeError):  # it has ended; _read() reports that
            self._to.write(base64.b64encode(body).decode("ascii") + "\n")
            self._to.flush()
        reply = self._read()
        return ForeignAnswer(reply.get("status", 0), reply["fault"] if reply["fault"] else reply.get("body"))

    def _read(self) -> dict[str, Any]:
        line = self._from.readline()
        if not line:
            return {"fault": f"its process ended with status {self._process.wait()}"}
        reply: dict[str, Any] = json.loads(line)
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _NoMetrics:
    """Accepts all metrics that handlers report, and drops them."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def main(folder: str, name: str, handler: str) -> None:
    """Answer every line of the input."""
    # Keep what the archive prints out of the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.path.insert(0, folder)  # as in a TorchServe worker
    try:
        service = _load(folder, name, handler)
    except Exception as error:  # noqa: BLE001 the archive's own code runs here
        # If the import fails, TorchServe looks for a handler of its own with that name, and fails again;
        # the first error is the useful one.
        first = error.__context__ if isinstance(error, ImportError) and error.__context__ else error
        return _send(answers, fault=f"{type(first).__name__}: {first}")
    _send(answers, fault=None)
    for line in sys.stdin:
        _answer_one(answers, service, base64.b64decode(line))
    return None


def _load(folder: str, name: str, handler: str) -> Any:
    from ts.model_loader import TsModelLoader

    return TsModelLoader().load(name, folder, handler)


def _answer_one(answers: IO[str], service: Any, body: bytes) -> None:
    from ts.context import RequestProcessor

    context = service.context
    context.request_processor, context.metrics = [RequestProcessor({})], _NoMetrics()
    try:
        [answer] = service._entry_point([{"body": body}], context)
    except Exception as error:  # noqa: BLE001 the archive's own code runs here
        return _send(answers, fault=f"its handler fails: {type(error).__name__}: {error}")
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes | bytearray) else answer
    return _send(answers, fault=None, status=context.get_response_status(0)[0], body=text)


def _send(answers: IO[str], **reply: Any) -> None:
    answers.write(json.dumps(reply, default=str) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
