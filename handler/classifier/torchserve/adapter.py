"""Translate TorchServe's rows and contexts to the core's requests and responses, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ..classifier import Classifier
from ..headers import QUERY
from ..messages import Request, Response
from ..protocols.body import FORM, MULTIPART
from .observer import Observer
from .socket import speed_up

RAW_BODY = "body"
# TorchServe's own headers for requests other than predictions.
DESCRIBE, EXPLAIN, ASKED = "describe", "explain", "True"


def open_classifier(context: Any) -> Classifier:
    """Open the archive that TorchServe unpacked for a worker. Raises what `Classifier.open` raises."""
    properties = context.system_properties
    return Classifier.open(Path(properties["model_dir"]), device=_device(properties))


class Adapter:
    """A classifier for TorchServe's worker: rows and a context in, bodies out, statuses set."""

    def __init__(self, classifier: Classifier, context: Any) -> None:
        self.classifier = classifier
        speed_up(context.metrics)
        self.observer = Observer(context, classifier.contract, **classifier.identity)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str | bytes]:
        """Answer each row of a batch, in order."""
        headers = [http_headers(context.get_all_request_header(index)) for index in range(len(data))]
        with self.observer.watch(len(data), context) as batch:
            requests = [request_of(row, own) for row, own in zip(data, headers, strict=True)]
            responses = self.classifier.answer(requests, batch)
        return [self._sent(index, response, context) for index, response in enumerate(responses)]

    def _sent(self, index: int, response: Response, context: Any) -> str | bytes:
        """Set a response's status, content type and headers, and return its body."""
        if response.status is not HTTPStatus.OK:
            context.set_response_status(int(response.status), response.status.phrase, index)
        context.set_response_content_type(index, response.content_type)
        for name, value in response.headers:
            context.set_response_header(index, name, value)
        return response.body


def request_of(row: Mapping[str, Any], headers: dict[str, str]) -> Request:
    """Return one of TorchServe's rows as a request; `headers` are the HTTP headers by lower-case name.

    A row is a raw body or the fields of a form. For /invocations, TorchServe adds the URL's query as further
    fields beside a raw body.
    """
    explain, describe = headers.get(EXPLAIN) == ASKED, headers.get(DESCRIBE) == ASKED
    if RAW_BODY in row:
        if len(row) == 1:
            return Request(as_bytes(row[RAW_BODY]), headers, None, explain, describe)
        if not headers.get("content-type", "").lower().startswith((FORM, MULTIPART)):
            parameters = {name: as_bytes(value) for name, value in row.items() if name != RAW_BODY}
            query = "&".join(filter(None, [urlencode(parameters), headers.get(QUERY)]))
            return Request(as_bytes(row[RAW_BODY]), {**headers, QUERY: query}, None, explain, describe)
    fields = {name: as_bytes(value) for name, value in row.items()}
    return Request(b"", headers, fields, explain, describe)


def as_bytes(value: Any) -> bytes:
    """Return a row's value as the bytes that were sent; with decode_input_request TorchServe parses some."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8")


def http_headers(mixed: Mapping[str, Any]) -> dict[str, str]:
    """Return the HTTP headers by lower-case name; TorchServe mixes them with the types of form fields."""
    return {name.lower(): value for name, value in mixed.items() if isinstance(value, str)}


def _device(properties: Mapping[str, Any]) -> str:
    """Return torch's name for the worker's device; torch is imported only for a GPU."""
    gpu = properties.get("gpu_id")
    if gpu is None:
        return "cpu"
    import torch

    return f"cuda:{gpu}" if torch.cuda.is_available() else "cpu"
