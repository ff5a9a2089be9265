"""The archive behind Flask: TorchServe's predictions, the article's POST /test, and a page to play on."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

import page_files
from instance import Served
from request_row import row_of
from tensor_form import BadTensor, tensor_of

if TYPE_CHECKING:  # not before the fork
    from engine import Engine

logger = logging.getLogger(__name__)

OK, BAD_REQUEST, NOT_FOUND, UNAVAILABLE = 200, 400, 404, 503
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
# What is left of a body is read and forgotten, up to so many times the limit: a client that still sends
# would find the connection closed, and not see the answer.
DRAINED = 8
CHUNK = 2**16


class Reply(Response):
    """A response that says no Content-Type where TorchServe says none."""

    default_mimetype = None


def create_app(engine: Engine, served: Served, limit: int) -> Flask:
    """Return the application that answers from an opened archive, bodies up to limit bytes."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = limit
    app.url_map.merge_slashes = False  # else //predictions would be sent elsewhere
    views = Views(engine, served)
    for path, view, methods in (
        ("/predictions/<path:target>", views.predict, ["POST", "PUT"]),
        ("/test", views.test, ["POST"]),
        ("/contract", views.contract, ["GET"]),
        ("/ping", views.ping, ["GET"]),
        ("/", views.page, ["GET"]),
        (f"/{page_files.ADDRESS}/<name>", views.page, ["GET"]),
    ):
        app.add_url_rule(path, view_func=view, methods=methods, provide_automatic_options=False)
    app.register_error_handler(HTTPException, _refusal)
    app.register_error_handler(Exception, _fault)
    app.after_request(_drained)
    return app


class Views:
    """What the addresses answer."""

    def __init__(self, engine: Engine, served: Served) -> None:
        self._engine = engine
        self._served = served
        # The threads of a process take in bodies together and compute one after the other, as
        # TorchServe's workers do: a picture may take 850 MB while it is read.
        self._computing = threading.Lock()
        told = page_files.served([(served.model, engine.handler.contract.labels)])
        self._page = page_files.contents() | {page_files.SERVED: told.encode()}

    def predict(self, target: str) -> Response:
        """Answer as TorchServe does, from the same handler; target is the model, with or without version."""
        row, headers = row_of(request)
        model, *rest = target.rstrip("/").split("/")
        if model != self._served.model:
            return _error(NOT_FOUND, "ModelNotFoundException", f"Model not found: {model}")
        if rest and rest[0] != self._served.version:
            missing = f"Model version: {rest[0]} does not exist for model: {model}"
            return _error(NOT_FOUND, "ModelVersionNotFoundException", missing)
        with self._computing:
            [answer] = self._engine.answer([row], [headers])
        return Reply(answer.content, answer.status, answer.headers)

    def test(self) -> Response:
        """Answer the article's client: float32 bytes as it preprocessed them, and their dims."""
        handler = self._engine.handler
        row, _ = row_of(request)
        try:
            batch = tensor_of(row, handler.contract.shape)
        except BadTensor as refusal:
            return _text(BAD_REQUEST, str(refusal))
        with self._computing:
            outputs = handler.inference(batch)
        if np.isnan(outputs).any():
            largest = f"{abs(batch).max():.2g}"
            return _text(BAD_REQUEST, f"the values reach {largest}, too much for the model; normalise them")
        [label] = handler.postprocess(outputs)
        return _text(OK, label)

    def contract(self) -> Response:
        """Tell a client how to preprocess, and which archive answers it."""
        served = self._served
        about = {"name": served.model, "version": served.version, "sha256": served.sha256}
        return _json(OK, {**about, "contract": self._engine.handler.contract.to_dict()})

    def page(self, name: str = page_files.INDEX) -> Response:
        """Answer the page to play on, or one of its files."""
        if name not in self._page:
            raise NotFound
        kind = page_files.TYPES[name.rpartition(".")[2]]
        reply = Reply(self._page[name], OK, page_files.HEADERS, content_type=kind)
        reply.add_etag()
        return reply.make_conditional(request)

    def ping(self) -> Response:
        """Say that this process answers."""
        return _json(OK, {"status": "Healthy"})


def _refusal(error: HTTPException) -> Response:
    """Answer what Flask itself refuses: as TorchServe words it, or by a sentence."""
    match error:
        case NotFound():
            missing = "Requested resource is not found, please refer to API document."
            return _error(NOT_FOUND, "ResourceNotFoundException", missing)
        case MethodNotAllowed():
            wrong = "Requested method is not allowed, please refer to API document."
            reply = _error(error.code, "MethodNotAllowedException", wrong)
            reply.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
            return reply
        case RequestEntityTooLarge():
            limit = request.max_content_length or 0
            return _text(error.code, f"the request has more than {limit:,} bytes; send a smaller file")
        case _:
            return _text(error.code or BAD_REQUEST, error.description or error.name)


def _fault(error: Exception) -> Response:
    """Answer a fault of ours as TorchServe answers one of its handler's, and keep on."""
    logger.error("a request failed", exc_info=error)
    return _error(UNAVAILABLE, "InternalServerException", "Prediction failed")


def _drained(reply: Response) -> Response:
    body = request.environ["wsgi.input"]
    left = DRAINED * (request.max_content_length or 0)
    while left > 0 and body.read(CHUNK):
        left -= CHUNK
    return reply


def _error(status: int, kind: str, message: str) -> Response:
    return _json(status, {"code": status, "type": kind, "message": message})


def _json(status: int, told: dict[str, Any]) -> Response:
    """Return JSON as TorchServe writes it."""
    return Reply(json.dumps(told, indent=2, ensure_ascii=False) + "\n", status, content_type=JSON)


def _text(status: int, sentence: str) -> Response:
    return Reply(sentence, status, content_type=TEXT)
