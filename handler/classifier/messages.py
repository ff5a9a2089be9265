"""What goes in and what comes out: requests and responses of any server, and what lies between the two."""

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
    """One request, whichever server it came through.

    A form arrives as its `fields`; any other body, an image or JSON, as `body`. The query of the address
    stands in `headers` as `x-query`, and the protocol of the address, where it is known, as `x-protocol`.
    """

    body: bytes = b""
    headers: Mapping[str, str] = NONE  # by lower-case name
    fields: Mapping[str, bytes] | None = None  # by name, in the form's order
    explain: bool = False  # which pixels made the answer
    describe: bool = False  # which archive this is; the body is not looked at


class AnswerForm(NamedTuple):
    """How a client wants its answer; None where it does not say."""

    json: bool | None = None
    top_k: int = 0  # how many of the likeliest labels, besides the answer
    show_input: bool = False  # what the model saw, too
    target: int | None = None  # the index of the label to explain


class Response(NamedTuple):
    """The answer to one request: a 4xx or 5xx status where it has none."""

    body: str | bytes
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    status: HTTPStatus = HTTPStatus.OK

    @property
    def ok(self) -> bool:
        """Whether the request was answered and not refused."""
        return self.status == HTTPStatus.OK

    @property
    def reason(self) -> str:
        """Why a request was refused, what came and what to send; empty where it was answered."""
        if self.ok:
            return ""
        error = json.loads(self.body)["error"]
        return error if isinstance(error, str) else f"{error['message']}; {error['hint']}"


class Seen(NamedTuple):
    """What the model saw of one request, and what it put out.

    `rows` are uint8 images (H, W, C), or float32 ones (C, H, W) that came scaled; `outputs` are float32
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
    """Image files, or what stands in their place, and how the answer to them is written."""

    tell: Callable[[Seen], Response]
    images: list[bytes] = field(default_factory=list)
    # What an error calls each of them; a single one needs no name.
    names: list[str] = field(default_factory=list)
    # float32 (N, C, H, W), from a client that scaled them itself.
    tensors: np.ndarray | None = None


@dataclass(frozen=True)
class Posed:
    """A question whose images were read, and its request's place in the batch."""

    question: Question
    rows: list[np.ndarray]
    index: int
