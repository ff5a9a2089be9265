"""Requests and responses, independent of the server, and the types in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from .outputs import probabilities

TEXT = "text/plain; charset=utf-8"
NONE: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """One request, whichever server received it.

    The fields of a form are in `fields`; any other body, an image or JSON, is in `body`. `headers` also has
    the URL's query as `x-query` and, if it is known, the URL's protocol as `x-protocol`.
    """

    body: bytes = b""
    headers: Mapping[str, str] = NONE  # by lower-case name
    fields: Mapping[str, bytes] | None = None  # by name, in the form's order
    explain: bool = False  # asks which pixels led to the answer
    describe: bool = False  # asks which archive this is; the body is ignored


class AnswerForm(NamedTuple):
    """The form in which a client wants its answer; None if it does not say."""

    json: bool | None = None
    top_k: int = 0  # how many of the most probable labels to add
    show_input: bool = False  # add what the model saw
    target: int | None = None  # the index of the label to explain


class Response(NamedTuple):
    """The answer to one request, or an error with a 4xx or 5xx status."""

    body: str | bytes
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    status: HTTPStatus = HTTPStatus.OK

    @property
    def ok(self) -> bool:
        """Whether the request was answered."""
        return self.status == HTTPStatus.OK

    @property
    def reason(self) -> str:
        """Why a request was refused, and what to send; empty if it was answered."""
        if self.ok:
            return ""
        error = json.loads(self.body)["error"]
        return error if isinstance(error, str) else f"{error['message']}; {error['hint']}"


class Seen(NamedTuple):
    """What the model saw of one request, and its outputs.

    `rows` are uint8 images (H, W, C), or float32 images (C, H, W) that came normalized; `outputs` are float32
    (N, labels), of the kind that the contract names.
    """

    rows: list[np.ndarray]
    outputs: np.ndarray
    kind: str | None

    def probabilities(self) -> np.ndarray:
        """Return the probability of each label, float32 (N, labels)."""
        return probabilities(self.outputs, self.kind)


@dataclass(frozen=True)
class Question:
    """Image files, or tensors in their place, and the function that writes the answer to them."""

    tell: Callable[[Seen], Response]
    images: list[bytes] = field(default_factory=list)
    # The name of each image in errors; a single image needs none.
    names: list[str] = field(default_factory=list)
    # float32 (N, C, H, W), normalized by the client.
    tensors: np.ndarray | None = None


@dataclass(frozen=True)
class Posed:
    """A question whose images have been read, and its request's place in the batch."""

    question: Question
    rows: list[np.ndarray]
    index: int
