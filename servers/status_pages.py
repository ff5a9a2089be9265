"""What a server tells of itself without a picture: whether it is ready, what it serves, what it answers.

The same behind the front door and in Flask. Other platforms ask by addresses of their own: /ping is
SageMaker's, /v1 and /v2 are those of KServe's protocols.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from instance import Served
from labels import labels_of

LIVE, READY = "/health/live", "/health/ready"
PING, OPENAPI = "/ping", "/openapi.json"
V1, V2 = "/v1/models/", "/v2/models/"
DESCRIPTION = Path(__file__).with_name("openapi.json")
# The key of an address in the description that one of the servers alone has.
ONLY = "x-server"
DOOR, FLASK = "door", "flask"

Page = tuple[HTTPStatus, Mapping[str, Any]]


@dataclass(frozen=True)
class State:
    """How a server is: whether its process lives, what keeps it from being ready, and what it serves."""

    kind: str          # DOOR or FLASK
    live: bool
    fault: str | None  # None: it is ready
    models: Callable[[], Iterable[Served]]


def page(path: str, state: State) -> Page:
    """Return the status and the body for a path."""
    ready = state.fault is None
    told: dict[str, tuple[bool, dict[str, Any]]] = {
        LIVE: (state.live, {"status": "live"}),
        READY: (ready, {"status": "ready"}),
        PING: (ready, {"status": "Healthy"}),
        f"/v2{LIVE}": (state.live, {"live": True}),
        f"/v2{READY}": (ready, {"ready": True}),
    }
    if path in told:
        well, body = told[path]
        return (HTTPStatus.OK, body) if well else _unwell(state)
    if path == OPENAPI:
        return HTTPStatus.OK, description(state.kind)
    for prefix, describe in ((V1, _in_v1), (V2, _in_v2)):
        if path.startswith(prefix):
            return _described(path.removeprefix(prefix), state, describe)
    return nothing()


def nothing() -> Page:
    """Return the page of an address that is none."""
    return error(
        HTTPStatus.NOT_FOUND,
        "there is nothing at this address",
        "send a picture to /predictions/MODEL, or ask /health/ready; /openapi.json has all addresses",
    )


def no_model() -> Page:
    """Return the page of a model that is not served."""
    return error(
        HTTPStatus.NOT_FOUND,
        "there is no such model, or no such version of it",
        "send the picture to a model that is served, without a version",
    )


def error(status: HTTPStatus, message: str, hint: str) -> Page:
    """Return an error in the form that all of them have."""
    return status, {"error": {"code": int(status), "message": message, "hint": hint}}


@lru_cache
def description(kind: str) -> dict[str, Any]:
    """Return the OpenAPI document of one kind of server: without what only the other one has."""
    told: dict[str, Any] = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    told["paths"] = {
        path: operations for path, operations in told["paths"].items() if operations.get(ONLY, kind) == kind
    }
    return told


def _unwell(state: State) -> Page:
    reason = state.fault or "its process does not live"
    return error(HTTPStatus.SERVICE_UNAVAILABLE, reason, "wait, or send the request to another server")


def _described(name: str, state: State, describe: Callable[[Served, State], dict[str, Any]]) -> Page:
    """Return what a protocol tells of a model; of several versions, of the one that was named first."""
    for one in state.models():
        if one.model == name:
            return HTTPStatus.OK, describe(one, state)
    return no_model()


def _in_v1(model: Served, state: State) -> dict[str, Any]:
    return {"name": model.model, "ready": state.fault is None}


def _in_v2(model: Served, _: State) -> dict[str, Any]:
    """Return what the V2 protocol tells of a model; -1 is the number of pictures.

    Scaled grey levels, which it takes instead of picture files, would stand here as a second input.
    """
    told = {"name": model.model, "versions": [model.version], "platform": "torchserve"}
    labels = _number_of_labels(model.file, model.sha256)
    if not labels:  # an archive that was not sealed, whose handler takes and answers what only it knows
        return {**told, "inputs": [], "outputs": []}
    outputs = {"label": ("BYTES", []), "index": ("INT64", []), "probability": ("FP32", []),
               "probabilities": ("FP32", [labels])}  # fmt: skip
    return {
        **told,
        "inputs": [{"name": "picture", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *more]}
            for name, (datatype, more) in outputs.items()
        ],
    }


@lru_cache
def _number_of_labels(archive: Path, _: str) -> int:
    """Return how many labels an archive has, which is read once for each SHA-256."""
    return len(labels_of(archive))
