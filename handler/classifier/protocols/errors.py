"""Error responses, in the form of the request's protocol."""

from __future__ import annotations

from http import HTTPStatus

from ..errors import JSON, BadRequest, error, error_in_v2
from ..messages import Request, Response
from .kserve_v2 import speaks_v2


def refused(request: Request, refusal: BadRequest) -> Response:
    """Return the response to a request that cannot be answered."""
    return _error(request, refusal.status, refusal.message, refusal.hint)


def failed(request: Request) -> Response:
    """Return the response to a request on which this code failed."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    hint = "try again later; the server's log has the details"
    return _error(request, status, "the server failed on this request", hint)


def _error(request: Request, status: HTTPStatus, message: str, hint: str) -> Response:
    """Return an error in the form of the request's protocol."""
    if speaks_v2(request):
        return Response(error_in_v2(message, hint), JSON, status=status)
    return Response(error(status, message, hint), JSON, status=status)
