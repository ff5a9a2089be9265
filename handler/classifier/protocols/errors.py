"""The response to a request that is not answered, in the form of its protocol."""

from __future__ import annotations

from http import HTTPStatus

from ..errors import JSON, BadRequest, error, error_in_v2
from ..messages import Request, Response
from .kserve_v2 import speaks_v2


def refused(request: Request, refusal: BadRequest) -> Response:
    """Return the error of a request that cannot be answered as it came."""
    return _error(request, refusal.status, refusal.message, refusal.hint)


def failed(request: Request) -> Response:
    """Return the error of a request at which this code failed."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    hint = "send it again later; the server's log has the details"
    return _error(request, status, "this request met a fault of the server", hint)


def _error(request: Request, status: HTTPStatus, message: str, hint: str) -> Response:
    """Return an error as the protocol of the request has it."""
    if speaks_v2(request):
        return Response(error_in_v2(message, hint), JSON, status=status)
    return Response(error(status, message, hint), JSON, status=status)
