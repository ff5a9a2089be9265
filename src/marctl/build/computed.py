"""What torch computes for an archive from the class with its weights: golden answers and an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Computed:
    """What a class with its weights answers and is exported to."""

    answers: Mapping[str, Any]  # label and outputs of each golden image, by name
    outputs: str  # which of classifier.outputs.KINDS they are
    exported: Mapping[str, bytes]  # the runtime's member, none for eager
    torch: str  # the version that computed them
    notes: tuple[str, ...] = ()  # to print
