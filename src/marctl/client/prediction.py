"""What a server answers, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# A row of grey levels, or of (red, green, blue), 0 to 255.
Pixels = list[list[Any]]


@dataclass(frozen=True)
class Candidate:
    """One label and its probability, 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Model:
    """Which archive answered; its SHA-256 is None where the archive has none."""

    name: str
    version: str
    sha256: str | None


@dataclass(frozen=True)
class Prediction:
    """The likeliest label; if they were asked for, the `top_k` likeliest ones, and the pixels."""

    label: str
    index: int
    probability: float
    top_k: tuple[Candidate, ...]
    input: Pixels | None
    model: Model


@dataclass(frozen=True)
class Explanation:
    """The label, and how much each pixel spoke for it (above 0) or against it (below)."""

    label: str
    index: int
    probability: float
    method: str
    input: Pixels
    attributions: list[list[Any]]
    model: Model


def prediction_of(told: dict[str, Any]) -> Prediction:
    """Return what a server's JSON says. Raises KeyError, TypeError or ValueError where it says none."""
    return Prediction(
        **_candidate(told),
        top_k=tuple(Candidate(**_candidate(one)) for one in told.get("top_k", ())),
        input=told.get("input"),
        model=_model(told),
    )


def explanation_of(told: dict[str, Any]) -> Explanation:
    """Return what a server's JSON says. Raises KeyError, TypeError or ValueError where it says none."""
    parts = {name: told[name] for name in ("method", "input", "attributions")}
    return Explanation(**_candidate(told), **parts, model=_model(told))


def _candidate(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": str(told["label"]),
        "index": int(told["index"]),
        "probability": float(told["probability"]),
    }


def _model(told: dict[str, Any]) -> Model:
    model = told["model"]
    return Model(model["name"], model["version"], model.get("sha256"))
