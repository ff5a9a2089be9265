"""A server's answers as Python values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Rows of grey levels, or of [red, green, blue], 0 to 255.
Pixels = list[list[Any]]


@dataclass(frozen=True)
class Candidate:
    """One label and its probability, 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Model:
    """The archive that answered; its SHA-256 is None if it has none."""

    name: str
    version: str
    sha256: str | None


@dataclass(frozen=True)
class Prediction:
    """The most likely label and, if requested, the `top_k` most likely ones and the pixels."""

    label: str
    index: int
    probability: float
    top_k: tuple[Candidate, ...]
    input: Pixels | None
    model: Model


@dataclass(frozen=True)
class Explanation:
    """The label, and how much each pixel speaks for it (above 0) or against it (below 0)."""

    label: str
    index: int
    probability: float
    method: str
    input: Pixels
    attributions: list[list[Any]]
    model: Model


def prediction_of(data: dict[str, Any]) -> Prediction:
    """Read a prediction from a server's JSON. Raises KeyError, TypeError or ValueError if it is none."""
    return Prediction(
        **_candidate(data),
        top_k=tuple(Candidate(**_candidate(one)) for one in data.get("top_k", ())),
        input=data.get("input"),
        model=_model(data),
    )


def explanation_of(data: dict[str, Any]) -> Explanation:
    """Read an explanation from a server's JSON. Raises KeyError, TypeError or ValueError if it is none."""
    parts = {name: data[name] for name in ("method", "input", "attributions")}
    return Explanation(**_candidate(data), **parts, model=_model(data))


def _candidate(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": str(data["label"]),
        "index": int(data["index"]),
        "probability": float(data["probability"]),
    }


def _model(data: dict[str, Any]) -> Model:
    model = data["model"]
    return Model(model["name"], model["version"], model.get("sha256"))
