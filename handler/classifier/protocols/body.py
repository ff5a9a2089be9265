"""Find the image files in the body of a request."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import BadImage, BadRequest, Reason
from ..messages import Request

FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
# A small image takes a worker 0.1 ms in all, and this many take as long as two batches of 16 requests: other
# clients hardly notice. Together they may have as many pixels as one image.
MOST_IMAGES = 64
# If a form has too many fields, the error names this many, each with this many characters: TorchServe ends a
# worker whose answer exceeds max_response_size.
NAMED, NAME = 5, 40
# A JSON body may begin with one of these; no image does.
JSON_STARTS = frozenset(b"{[ \t\r\n")


def files_of(request: Request, options: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return a request's files by field name, in order, and its options by theirs.

    `options` are names of form fields that say how to answer. A lone field is the image, whatever its name.
    Raises BadImage, and BadRequest if there are more than MOST_IMAGES files.
    """
    if (body := lone_file(request)) is not None:
        return {"": body}, {}
    fields = request.fields or {}
    given = {name: fields[name] for name in options if name in fields}
    files = {name: value for name, value in fields.items() if name not in options}
    if len(files) > MOST_IMAGES:
        raise too_many(f"the form has the fields {_named(sorted(files))}:", len(files))
    return files or {"": b""}, {name: value.decode("utf-8", "replace") for name, value in given.items()}


def lone_file(request: Request) -> bytes | None:
    """Return the body of a request, or the only field of its form; None if the form has none or several.

    Raises BadImage for a form that cannot hold a file.
    """
    fields = request.fields
    if fields is None:
        return request.body
    if request.headers.get("content-type", "").lower().startswith(FORM):
        raise web_form()
    return next(iter(fields.values())) if len(fields) == 1 else None


def web_form() -> BadImage:
    """Return the error for an image sent as a web form, which is cut off at its first line break."""
    return BadImage(
        f"the image was sent as {FORM}, which cannot hold one",
        "send it with curl -T FILE, or with the header Content-Type: application/octet-stream; send JSON "
        "with curl --json",
        Reason.WEB_FORM,
    )


def too_many(what: str, count: int) -> BadRequest:
    """Return the error for a request with too many images."""
    return BadRequest(f"{what} {count:,} images", f"send at most {MOST_IMAGES} per request", Reason.TOO_MANY)


def shown(name: str) -> str:
    """Return a field's name, shortened if it is long."""
    return name if len(name) <= NAME else f"{name[:NAME]}…"


def is_json(body: bytes | bytearray) -> bool:
    """Return whether a body is JSON and not an image, by its first byte."""
    return body[:1] != b"" and body[0] in JSON_STARTS


def _named(fields: Sequence[str]) -> str:
    named = ", ".join(map(shown, fields[:NAMED]))
    return named + (f" and {len(fields) - NAMED:,} more" if len(fields) > NAMED else "")
