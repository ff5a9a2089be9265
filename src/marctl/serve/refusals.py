"""What the servers around the core refuse, in the one form of all errors."""

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
    "send an image to /predictions/MODEL, or ask /health/ready; /openapi.json has all addresses",
)
NO_MODEL = Refusal(
    HTTPStatus.NOT_FOUND,
    "there is no such model, or no such version of it",
    "send the image to a model that is served, without a version",
)
_ALONE = "send the image alone: curl -T image.png"


def of_proxy(body: int, rate: int, connections: int, retry: int) -> dict[str, Refusal]:
    """Return what nginx refuses, by the name of the variable that holds it.

    `body` is in bytes, `rate` in requests a second, `retry` in seconds. $request_method is nginx's own.
    """
    return {
        "nothing": NOTHING,
        "no_model": NO_MODEL,
        "web_form": Refusal(
            HTTPStatus.BAD_REQUEST, "a web form holds no image", f"{_ALONE}; JSON by curl --json"
        ),
        "unread_form": Refusal(HTTPStatus.BAD_REQUEST, "the form cannot be read", _ALONE),
        "malformed": Refusal(
            HTTPStatus.BAD_REQUEST,
            "the request is no HTTP, or its address or a header is too long",
            "send header lines of at most 8 KiB",
        ),
        "method": Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "$request_method is no way to send an image",
            "use PUT or POST: curl -T image.png",
        ),
        "large_form": Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "the form is too large, or does not say how large it is",
            f"{_ALONE}; a form has at most 9999999 bytes",
        ),
        "large": Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large", f"send at most {body} bytes"
        ),
        "often": Refusal(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too many requests or connections from this address",
            f"send at most {rate} a second on at most {connections} connections, and try again in a second",
        ),
        "away": Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "no worker can answer now",
            f"try again in {retry} seconds; /health/ready tells when",
        ),
    }


def as_nginx_maps(refusals: dict[str, Refusal]) -> str:
    """Return nginx's configuration of the body of each refusal, by the protocol of the address."""
    return "\n".join(
        f"    map $protocol $refused_{name} {{ default '{error(*refusal)[:-1]}\\n'; "
        f"\"v2\" '{error_in_v2(refusal.message, refusal.hint)[:-1]}\\n'; }}"
        for name, refusal in refusals.items()
    )
