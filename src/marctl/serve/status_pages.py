"""What a server tells of itself without an image: whether it is ready, what it serves, what it answers.

The same behind the reverse proxy and in Flask. Other platforms ask by addresses of their own: /ping is
SageMaker's, /v1 and /v2 are those of KServe's protocols.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any

from classifier.errors import error_object, error_object_in_v2
from marctl.archive.labels import labels_of
from marctl.serve.refusals import NO_MODEL, NOTHING
from marctl.serve.torchserve.instance import Served

LIVE, READY = "/health/live", "/health/ready"
PING, OPENAPI = "/ping", "/openapi.json"
V1, V2 = "/v1/models/", "/v2"
MODEL = re.compile(rf"{V2}/models/([^/]+)(?:/versions/([^/]+))?(/ready)?")
# Triton's name for tensors as bytes behind the JSON.
EXTENSIONS = ["binary_tensor_data"]
DESCRIPTION = Path(__file__).with_name("openapi.json")
# The key of an address in the description that one of the servers alone has.
ONLY = "x-server"
DOOR, FLASK = "door", "flask"
PROGRAMS = {DOOR: "torchserve", FLASK: "flask"}

Page = tuple[HTTPStatus, Mapping[str, Any]]


@dataclass(frozen=True)
class State:
    """How a server is: whether its process lives, what keeps it from being ready, and what it serves."""

    kind: str  # DOOR or FLASK
    live: bool
    fault: str | None  # None: it is ready
    models: Callable[[], Iterable[Served]]


def page(path: str, state: State) -> Page:
    """Return the status and the body for a path; `in_form_of` gives an error its form."""
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
    if path in (V2, f"{V2}/"):
        return HTTPStatus.OK, _server_in_v2(state)
    if path.startswith(V1):
        return _described(path.removeprefix(V1), None, state, _in_v1)
    if asked := MODEL.fullmatch(path):
        name, version, readiness = asked.groups()
        return _described(name, version, state, _readiness if readiness else _in_v2)
    return nothing()


def in_form_of(path: str, told: Page) -> Page:
    """Return a page as its address's protocol has it: V2's clients print its errors, which are texts."""
    status, body = told
    if status < HTTPStatus.BAD_REQUEST or not is_v2(path):
        return told
    error = body["error"]
    return status, error_object_in_v2(error["message"], error["hint"])


def is_v2(path: str) -> bool:
    """Return whether an address is one of the V2 protocol's."""
    return path == V2 or path.startswith(f"{V2}/")


def nothing() -> Page:
    """Return the page of an address that is none."""
    return error(*NOTHING)


def no_model() -> Page:
    """Return the page of a model that is not served."""
    return error(*NO_MODEL)


def error(status: HTTPStatus, message: str, hint: str) -> Page:
    """Return an error in the form that all of them have."""
    return status, error_object(status, message, hint)


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


def _described(
    name: str, version: str | None, state: State, describe: Callable[[Served, State], Page]
) -> Page:
    """Return what a protocol tells of a model; of several versions, of the one that was named first."""
    for one in state.models():
        if one.model == name and version in (None, one.version):
            return describe(one, state)
    return no_model()


def _in_v1(model: Served, state: State) -> Page:
    return HTTPStatus.OK, {"name": model.model, "ready": state.fault is None}


def _server_in_v2(state: State) -> dict[str, Any]:
    program = PROGRAMS[state.kind]
    return {"name": program, "version": metadata.version(program), "extensions": EXTENSIONS}


def _readiness(model: Served, state: State) -> Page:
    """Return whether a model is ready. All of a server's models are, or the server is not."""
    if state.fault is not None:
        return _unwell(state)
    return HTTPStatus.OK, {"name": model.model, "ready": True}


def _in_v2(model: Served, state: State) -> Page:
    """Return what the V2 protocol tells of a model; -1 is the number of images.

    Scaled grey levels, which it takes instead of image files, would stand here as a second input.
    """
    versions = [one.version for one in state.models() if one.model == model.model]
    told = {"name": model.model, "versions": versions, "platform": "torchserve"}
    labels = _number_of_labels(model.file, model.sha256)
    if not labels:  # an archive that was not sealed, whose handler takes and answers what only it knows
        return HTTPStatus.OK, {**told, "inputs": [], "outputs": []}
    outputs = {"label": ("BYTES", []), "index": ("INT64", []), "probability": ("FP32", []),
               "probabilities": ("FP32", [labels])}  # fmt: skip
    return HTTPStatus.OK, {
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
