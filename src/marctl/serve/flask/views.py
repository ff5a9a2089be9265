"""The archive behind Flask: the proxy's addresses, the article's POST /test, and the web page."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import numpy as np
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from classifier.errors import JSON, BadRequest
from classifier.messages import TEXT
from marctl.serve.flask.requests import fields_of
from marctl.serve.flask.tensor_form import tensor_of
from marctl.serve.page import files as page_files
from marctl.serve.status_pages import (
    FLASK,
    OPENAPI,
    PING,
    Page,
    State,
    error,
    in_form_of,
    no_model,
    nothing,
    page,
)
from marctl.serve.torchserve.instance import Served

if TYPE_CHECKING:  # not before the fork
    from marctl.archive.opened import Opened

logger = logging.getLogger(__name__)

SENDING, ASKING = ["POST", "PUT"], ["GET"]
# The rest of a refused body is read and discarded, up to this many times the limit: otherwise the connection
# closes while the client is still sending, and the client does not see the answer.
DRAINED = 8
CHUNK = 2**16
STATUS_PAGES = (
    PING, OPENAPI, "/health/<_>", "/v1/models/<_>", "/v2", "/v2/", "/v2/health/<_>", "/v2/models/<_>",
    "/v2/models/<_>/ready", "/v2/models/<_>/versions/<version>", "/v2/models/<_>/versions/<version>/ready",
)  # fmt: skip


class Reply(Response):
    """A response without a default Content-Type, as TorchServe's are."""

    default_mimetype = None


def create_app(opened: Opened, served: Served, limit: int) -> Flask:
    """Return the application that answers from an opened archive; bodies may have `limit` bytes."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = limit
    app.url_map.merge_slashes = False  # else //predictions would be redirected
    views = Views(opened, served)
    routes: tuple[tuple[str, Callable[..., Response], list[str]], ...] = (
        ("/predictions/<path:target>", views.predict, SENDING),
        ("/explanations/<path:target>", views.explain, SENDING),
        ("/v1/models/<target>:predict", views.predict_by_name, SENDING),
        ("/v2/models/<target>/infer", views.predict_by_name, SENDING),
        ("/v2/models/<target>/versions/<version>/infer", views.predict_by_name, SENDING),
        ("/invocations", views.invoke, SENDING),
        ("/test", views.test, ["POST"]),
        ("/contract", views.contract, ASKING),
        *((path, views.status, ASKING) for path in STATUS_PAGES),
    )
    for path, view, methods in routes:
        app.add_url_rule(path, view_func=view, methods=methods, provide_automatic_options=False)
    for path in ("/", f"/{page_files.ADDRESS}/<_>"):
        app.add_url_rule(path, view_func=views.play, methods=ASKING, provide_automatic_options=False)
    app.register_error_handler(HTTPException, _refusal)
    app.register_error_handler(Exception, _fault)
    app.after_request(_drained)
    return app


class Views:
    """The view functions."""

    def __init__(self, opened: Opened, served: Served) -> None:
        self._opened = opened
        self._served = served
        # A process that answers has checked its archive's golden answers.
        self._state = State(FLASK, live=True, fault=None, models=lambda: [served])
        # The threads of a process receive bodies in parallel but compute one at a time, as TorchServe's
        # workers do: an image may take 850 MB while it is decoded.
        self._computing = threading.Lock()
        models = page_files.served([(served.model, opened.classifier.contract.labels)])
        self._page = page_files.addresses(models)

    def predict(self, target: str) -> Response:
        """Answer with the same handler as TorchServe; target is MODEL or MODEL/VERSION."""
        return self._answer(*target.rstrip("/").split("/"))

    def explain(self, target: str) -> Response:
        """Return how much each pixel contributed to the answer."""
        return self._answer(*target.rstrip("/").split("/"), explain=True)

    def predict_by_name(self, target: str, version: str | None = None) -> Response:
        """Answer at KServe's addresses; the handler recognises the protocol by the body."""
        return self._answer(target, *filter(None, [version]))

    def invoke(self) -> Response:
        """Answer at the address of SageMaker's containers, which names no model."""
        return self._answer(request.args.get("model_name", self._served.model))

    def _answer(self, model: str, *rest: str, explain: bool = False) -> Response:
        fields = fields_of(request, explain=explain)
        if model != self._served.model or (rest and rest[0] != self._served.version):
            return _paged(no_model())
        with self._computing:
            [response] = self._opened.answer([fields])
        return Reply(response.body, response.status, response.headers, content_type=response.content_type)

    def test(self) -> Response:
        """Answer the article's client, which sends preprocessed float32 bytes and their dims."""
        classifier = self._opened.classifier
        try:
            batch = tensor_of(fields_of(request)["fields"] or {}, classifier.contract.shape)
        except BadRequest as refusal:
            return _refused(refusal.message, refusal.hint)
        with self._computing:
            outputs = classifier.inference(batch)
        if np.isnan(outputs).any():
            reached = f"{abs(batch).max():.2g}"
            return _refused(f"the values reach {reached}, too large for the model", "normalise them")
        [label] = classifier.postprocess(outputs)
        return Reply(label, HTTPStatus.OK, content_type=TEXT)

    def contract(self) -> Response:
        """Return the contract, by which a client can preprocess, and the archive's name and digest."""
        served = self._served
        about = {"name": served.model, "version": served.version, "sha256": served.sha256}
        return _paged((HTTPStatus.OK, {**about, "contract": self._opened.classifier.contract.to_dict()}))

    def play(self, _: str = "") -> Response:
        """Return the web page, or one of its files."""
        if request.path not in self._page:
            raise NotFound
        content, kind = self._page[request.path]
        reply = Reply(content, HTTPStatus.OK, page_files.HEADERS, content_type=kind)
        reply.add_etag()
        reply.make_conditional(request)
        return reply

    def status(self, _: str = "", version: str = "") -> Response:  # noqa: ARG002 the page has the whole path
        """Return a page that needs no image: readiness, metadata, the OpenAPI document."""
        return _paged(page(request.path, self._state))


def _refusal(error_of_flask: HTTPException) -> Response:
    """Answer Flask's own errors in the usual form."""
    match error_of_flask:
        case NotFound():
            return _paged(nothing())
        case MethodNotAllowed(valid_methods=valid):
            methods = ", ".join(sorted(valid or ()))
            message = f"{request.method} is not allowed here"
            reply = _paged(error(HTTPStatus.METHOD_NOT_ALLOWED, message, f"use {methods}"))
            reply.headers["Allow"] = methods
            return reply
        case RequestEntityTooLarge():
            limit = request.max_content_length or 0
            hint = f"send at most {limit} bytes"
            return _paged(error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large", hint))
        case other:
            status = HTTPStatus(other.code or HTTPStatus.BAD_REQUEST)
            return _paged(error(status, other.description or other.name, "send a valid HTTP request"))


def _fault(fault: Exception) -> Response:
    """Answer an error of our own with 503, and keep serving."""
    logger.error("a request failed", exc_info=fault)
    said = "the server failed on this request"
    return _paged(error(HTTPStatus.SERVICE_UNAVAILABLE, said, "try again; the server's log has the details"))


def _drained(reply: Response) -> Response:
    body = request.environ["wsgi.input"]
    left = DRAINED * (request.max_content_length or 0)
    while left > 0 and body.read(CHUNK):
        left -= CHUNK
    return reply


def _refused(message: str, hint: str) -> Response:
    return _paged(error(HTTPStatus.BAD_REQUEST, message, hint))


def _paged(answer: Page) -> Response:
    status, body = in_form_of(request.path, answer)
    return Reply(json.dumps(body) + "\n", status, content_type=JSON)
