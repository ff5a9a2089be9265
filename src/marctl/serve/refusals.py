"""The errors of the servers around the core, in the same form as the core's."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from classifier.errors import error, error_in_v2


class Refusal(NamedTuple):
    """A status, what was wrong, and what to do."""

    status: HTTPStatus
    message: str
    hint: str


NOTHING = Refusal(
    HTTPStatus.NOT_FOUND,
    "there is nothing at this address",
    "send an image to /predictions/MODEL, or GET /health/ready; /openapi.json lists all addresses",
)
NO_MODEL = Refusal(
    HTTPStatus.NOT_FOUND,
    "there is no such model, or no such version of it",
    "name a model that is served, and leave out the version",
)
_ALONE = "send the image itself as the body: curl -T image.png"


def of_proxy(body: int, rate: int, connections: int, retry: int) -> dict[str, Refusal]:
    """Return nginx's errors, by the name of the variable that holds the body.

    `body` is in bytes, `rate` in requests per second, `retry` in seconds. nginx fills in $request_method.
    """
    return {
        "nothing": NOTHING,
        "no_model": NO_MODEL,
        "web_form": Refusal(
            HTTPStatus.BAD_REQUEST,
            "a URL-encoded form cannot hold an image",
            f"{_ALONE}, or JSON: curl --json",
        ),
        "unread_form": Refusal(HTTPStatus.BAD_REQUEST, "the form cannot be read", _ALONE),
        "malformed": Refusal(
            HTTPStatus.BAD_REQUEST,
            "the request is not valid HTTP, or its address or a header is too long",
            "send header lines of at most 8 KiB",
        ),
        "method": Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "$request_method cannot be used to send an image",
            "use PUT or POST: curl -T image.png",
        ),
        "large_form": Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "the form is too large, or has no Content-Length",
            f"{_ALONE}; a form may have at most 9999999 bytes",
        ),
        "large": Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large", f"send at most {body} bytes"
        ),
        "often": Refusal(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too many requests or connections from this address",
            f"send at most {rate} requests a second on at most {connections} connections; retry in a second",
        ),
        "away": Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "no worker can answer now",
            f"try again in {retry} seconds; /health/ready reports when the server is ready",
        ),
    }


def as_nginx_maps(refusals: dict[str, Refusal]) -> str:
    """Return the nginx configuration that sets each error's body, by the protocol of the address."""
    return "\n".join(
        f"    map $protocol $refused_{name} {{ default '{error(*refusal)[:-1]}\\n'; "
        f"\"v2\" '{error_in_v2(refusal.message, refusal.hint)[:-1]}\\n'; }}"
        for name, refusal in refusals.items()
    )
