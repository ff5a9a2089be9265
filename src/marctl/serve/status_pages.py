"""The pages that describe a server: whether it is ready, which models it serves, its OpenAPI document.

The reverse proxy and Flask serve the same pages. Some paths belong to other platforms: /ping is SageMaker's,
/v1 and /v2 belong to KServe's protocols.
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
# Triton's name for tensors sent as bytes after the JSON.
EXTENSIONS = ["binary_tensor_data"]
DESCRIPTION = Path(__file__).with_name("openapi.json")
# The key that marks a path in the OpenAPI document that only one of the servers has.
ONLY = "x-server"
DOOR, FLASK = "door", "flask"
PROGRAMS = {DOOR: "torchserve", FLASK: "flask"}

Page = tuple[HTTPStatus, Mapping[str, Any]]


@dataclass(frozen=True)
class State:
    """A server's state: whether its process is alive, why it is not ready, and what it serves."""

    kind: str  # DOOR or FLASK
    live: bool
    fault: str | None  # None: it is ready
    models: Callable[[], Iterable[Served]]


def page(path: str, state: State) -> Page:
    """Return the status and the body for a path; `in_form_of` puts errors into the protocol's form."""
    ready = state.fault is None
    pages: dict[str, tuple[bool, dict[str, Any]]] = {
        LIVE: (state.live, {"status": "live"}),
        READY: (ready, {"status": "ready"}),
        PING: (ready, {"status": "Healthy"}),
        f"/v2{LIVE}": (state.live, {"live": True}),
        f"/v2{READY}": (ready, {"ready": True}),
    }
    if path in pages:
        ok, body = pages[path]
        return (HTTPStatus.OK, body) if ok else _unavailable(state)
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


def in_form_of(path: str, answer: Page) -> Page:
    """Return a page with errors in the form of the path's protocol: in V2 an error is a string."""
    status, body = answer
    if status < HTTPStatus.BAD_REQUEST or not is_v2(path):
        return answer
    error = body["error"]
    return status, error_object_in_v2(error["message"], error["hint"])


def is_v2(path: str) -> bool:
    """Return whether a path belongs to the V2 protocol."""
    return path == V2 or path.startswith(f"{V2}/")


def nothing() -> Page:
    """Return the page for an unknown path."""
    return error(*NOTHING)


def no_model() -> Page:
    """Return the page for a model that is not served."""
    return error(*NO_MODEL)


def error(status: HTTPStatus, message: str, hint: str) -> Page:
    """Return an error in the usual form."""
    return status, error_object(status, message, hint)


@lru_cache
def description(kind: str) -> dict[str, Any]:
    """Return the OpenAPI document of one kind of server, without the other's own paths."""
    document: dict[str, Any] = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
    document["paths"] = {
        path: operations
        for path, operations in document["paths"].items()
        if operations.get(ONLY, kind) == kind
    }
    return document


def _unavailable(state: State) -> Page:
    reason = state.fault or "its process is not alive"
    return error(HTTPStatus.SERVICE_UNAVAILABLE, reason, "wait, or send the request to another server")


def _described(
    name: str, version: str | None, state: State, describe: Callable[[Served, State], Page]
) -> Page:
    """Return a protocol's page for a model; without a version, for the first one served."""
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
    """Return whether a model is ready. The server is ready only if all its models are."""
    if state.fault is not None:
        return _unavailable(state)
    return HTTPStatus.OK, {"name": model.model, "ready": True}


def _in_v2(model: Served, state: State) -> Page:
    """Return a model's V2 metadata; -1 stands for the number of images.

    Tensors of scaled grey levels are accepted too, but listing them would make them a second input.
    """
    versions = [one.version for one in state.models() if one.model == model.model]
    about = {"name": model.model, "versions": versions, "platform": "torchserve"}
    labels = _number_of_labels(model.file, model.sha256)
    if not labels:  # an unsealed archive: only its own handler knows its inputs and outputs
        return HTTPStatus.OK, {**about, "inputs": [], "outputs": []}
    outputs = {"label": ("BYTES", []), "index": ("INT64", []), "probability": ("FP32", []),
               "probabilities": ("FP32", [labels])}  # fmt: skip
    return HTTPStatus.OK, {
        **about,
        "inputs": [{"name": "picture", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *more]}
            for name, (datatype, more) in outputs.items()
        ],
    }


@lru_cache
def _number_of_labels(archive: Path, _: str) -> int:
    """Return how many labels an archive has; cached by SHA-256."""
    return len(labels_of(archive))
