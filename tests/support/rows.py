"""An opened archive, called as TorchServe calls its handler: with rows of fields and each row's headers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ts.context import Context, RequestProcessor

from marctl.archive.opened import Opened


class Answer(NamedTuple):
    """What a client would get."""

    status: int
    body: Any
    headers: dict[str, str]
    reason: str

    @property
    def content(self) -> bytes:
        """The body as bytes."""
        return self.body if isinstance(self.body, bytes) else self.body.encode()

    @property
    def ok(self) -> bool:
        """Whether the request was answered."""
        return self.status == 200


class Engine(Opened):
    """An opened archive behind its own TorchServe adapter, with TorchServe's context."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self.handler = self.classifier
        adapter = importlib.import_module(f"{self.name}.torchserve.adapter")
        self._adapter = adapter.Adapter(self.classifier, self._context([]))
        self._response = importlib.import_module(f"{self.name}.messages").Response
        self.observer = self._adapter.observer

    @property
    def eager(self) -> Any:
        """The eager reference."""
        return self.classifier.eager

    def predict(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Answer one batch of image files."""
        return self.answer([{"body": body} for body in bodies])

    def answer(self, rows: Sequence[dict[str, Any]], headers: Sequence[dict[str, Any]] = ()) -> list[Answer]:
        """Answer one batch of rows."""
        context = self._context(headers or [{} for _ in rows])
        bodies = self._adapter.handle(list(rows), context)
        return [self._answer(index, body, context) for index, body in enumerate(bodies)]

    def _context(self, headers: Sequence[dict[str, Any]]) -> Context:
        model = self.classifier.manifest
        context = Context(model["modelName"], str(self.folder), {"model": model}, 16, None, "0.12.0")
        context.request_processor = [RequestProcessor(one) for one in headers]
        context.metrics = None
        return context

    def _answer(self, index: int, body: Any, context: Context) -> Answer:
        status, headers = context.get_response_status(index)[0], context.get_response_headers(index)
        return Answer(status, body, headers, self._response(body, status=status).reason)
