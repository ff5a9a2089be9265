"""What one request asks the model, and what it will be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from confidence import probabilities


class Reply(NamedTuple):
    """An answer as it goes out, and the headers that are its own."""

    body: str | bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


class Seen(NamedTuple):
    """What the model saw of one request, and what it put out.

    `rows` are uint8 pictures (H, W, C), or float32 ones (C, H, W) that came scaled; `outputs` are float32
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
    """Picture files, or what stands in their place, and how the answer to them is told."""

    tell: Callable[[Seen], Reply]
    pictures: list[bytes] = field(default_factory=list)
    # How each is called where it is refused; none has a name where there is but one.
    names: list[str] = field(default_factory=list)
    # float32 (N, C, H, W), from a client that scaled them itself.
    tensors: np.ndarray | None = None


@dataclass(frozen=True)
class Posed:
    """A question whose pictures were read: what the model is to see, and its request's place in the batch."""

    question: Question
    rows: list[np.ndarray]
    index: int
