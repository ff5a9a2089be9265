"""Form bodies that are malformed, or contain more than a form should."""

from __future__ import annotations

from collections.abc import Callable

BOUNDARY = b"b"
MULTIPART = "multipart/form-data; boundary=b"
URLENCODED = "application/x-www-form-urlencoded"
FIELDS = 20_000  # fields of one form
MEGABYTE = 2**20
DEEP = 100  # forms within forms
FILE = b'form-data; name="data"; filename="a"'

Make = Callable[[bytes], bytes]  # a body, given a good image


def part(content: bytes, disposition: bytes = FILE, *lines: bytes) -> bytes:
    """Return one part of a form."""
    head = b"".join(line + b"\r\n" for line in (b"Content-Disposition: " + disposition, *lines))
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n" + content + b"\r\n"


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    """Return a form of these parts."""
    return b"".join(parts) + end


def many(count: int, size: int = 1) -> bytes:
    """Return a form with `count` fields of different names."""
    return form(*(part(b"x" * size, f'form-data; name="f{i}"'.encode()) for i in range(count)))


def nested(content: bytes, depth: int) -> bytes:
    """Return a form with forms nested `depth` deep."""
    body = content
    for level in range(depth):
        inner = f"c{level}".encode()
        head = b"--" + inner + b'\r\nContent-Disposition: file; filename="a"\r\n'
        if level:
            head += f"Content-Type: multipart/mixed; boundary=c{level - 1}\r\n".encode()
        body = head + b"\r\n" + body + b"\r\n--" + inner + b"--\r\n"
    kind = f"Content-Type: multipart/mixed; boundary=c{depth - 1}".encode()
    return form(part(body, b'form-data; name="data"', kind))


def _of(make: Make, kind: str = MULTIPART) -> tuple[str, Make]:
    return kind, make


def _head(disposition: bytes, *lines: bytes) -> tuple[str, Make]:
    return MULTIPART, lambda good: form(part(good, disposition, *lines))


_whole: Make = lambda good: form(part(good))  # noqa: E731 a table of such
FORMS: dict[str, tuple[str, Make]] = {
    "boundary-missing": _of(_whole, "multipart/form-data"),
    "boundary-empty": _of(_whole, "multipart/form-data; boundary="),
    "boundary-another": _of(_whole, "multipart/form-data; boundary=other"),
    "boundary-twice": _of(_whole, "multipart/form-data; boundary=x; boundary=b"),
    "boundary-with-an-open-quote": _of(_whole, 'multipart/form-data; boundary="b'),
    "boundary-of-7000": _of(_whole, f"multipart/form-data; boundary={'b' * 7000}"),
    "boundary-of-spaces": _of(_whole, "multipart/form-data; boundary=   "),
    "boundary-in-the-image": _of(lambda good: form(part(good[:50] + b"\r\n--b\r\n" + good[50:]))),
    "boundaries-alone": _of(lambda _: b"--b\r\n" * FIELDS),
    "no-end": _of(lambda good: form(part(good), end=b"")),
    "end-first": _of(lambda good: b"--b--\r\n" + form(part(good))),
    "end-without-a-line-break": _of(lambda good: form(part(good), end=b"--b--")),
    "cut-within-a-part's-head": _of(lambda _: b"--b\r\nContent-Dispo"),
    "no-empty-line": _of(lambda good: form(part(good)).replace(b"\r\n\r\n", b"\r\n", 1)),
    "line-feeds-alone": _of(lambda good: form(part(good)).replace(b"\r\n", b"\n")),
    "no-disposition": _of(lambda good: b"--b\r\nX: y\r\n\r\n" + good + b"\r\n--b--\r\n"),
    "no-head": _of(lambda good: b"--b\r\n\r\n" + good + b"\r\n--b--\r\n"),
    "not-form-data": _head(b'attachment; name="data"'),
    "no-name": _head(b"form-data"),
    "empty-name": _head(b'form-data; name=""'),
    "open-quote": _head(b'form-data; name="data'),
    "name-of-a-megabyte": _head(b'form-data; name="' + b"n" * MEGABYTE + b'"'),
    "file-name-of-a-megabyte": _head(b'form-data; name="data"; filename="' + b"n" * MEGABYTE + b'"'),
    "name-with-a-zero-byte": _head(b'form-data; name="a\0b"'),
    "name-not-utf-8": _head(b'form-data; name="\xff\xfe"'),
    "name-in-quotes-of-quotes": _head(b'form-data; name="a\\"b\\\\"; filename="\\"'),
    "file-name-that-leads-out": _head(b'form-data; name="data"; filename="../../../../tmp/hostile"'),
    "file-name-encoded-wrong": _head(b"form-data; name=\"data\"; filename*=UTF-8''%ZZ%"),
    "file-name-in-no-charset": _head(b"form-data; name=\"data\"; filename*=nonsense''a"),
    "charset-nonsense": _head(b'form-data; name="data"', b"Content-Type: text/plain; charset=nonsense"),
    "charset-empty": _head(b'form-data; name="data"', b"Content-Type: text/plain; charset="),
    "type-empty": _head(FILE, b"Content-Type:"),
    "encoding-nonsense": _head(FILE, b"Content-Transfer-Encoding: nonsense"),
    "encoding-7bit": _head(FILE, b"Content-Transfer-Encoding: 7bit"),
    "length-too-short": _head(FILE, b"Content-Length: 5"),
    "length-too-long": _head(FILE, b"Content-Length: 5000000"),
    "length-negative": _head(FILE, b"Content-Length: -1"),
    "length-enormous": _head(FILE, b"Content-Length: 9223372036854775807"),
    "length-no-number": _head(FILE, b"Content-Length: x"),
    "two-dispositions": _head(b'form-data; name="a"', b'Content-Disposition: form-data; name="b"'),
    "ten-thousand-header-lines": _head(b'form-data; name="data"', *(b"X: y" for _ in range(10_000))),
    "header-line-of-a-megabyte": _head(b'form-data; name="data"', b"X: " + b"y" * MEGABYTE),
    "many-fields": _of(lambda _: many(FIELDS)),
    "fields-with-long-names": _of(lambda _: form(*(
        part(b"x", b'form-data; name="' + bytes([97 + i]) * 100_000 + b'"') for i in range(20)))),
    "many-fields-of-one-name": _of(lambda good: form(*[part(good)] * 5000)),
    "many-empty-files": _of(lambda _: form(*(part(b"", f'form-data; name="f{i}"; filename="a"'.encode())
                                             for i in range(FIELDS)))),
    "form-in-a-form": _of(lambda good: nested(good, 1)),
    "hundred-forms-in-a-form": _of(lambda good: nested(good, DEEP)),
    "form-that-is-itself": _of(lambda good: form(
        part(form(part(good)), b'form-data; name="a"', b"Content-Type: " + MULTIPART.encode()))),
    "preamble-of-a-megabyte": _of(lambda good: b"x" * MEGABYTE + b"\r\n" + form(part(good))),
    "dashes": _of(lambda _: b"-" * MEGABYTE),
    "line-breaks": _of(lambda _: b"\r\n" * MEGABYTE),
    "almost-boundaries": _of(lambda good: form(part((b"\r\n--" * 100_000) + good))),
    "web-form-of-many-fields": _of(lambda _: b"&".join(b"f%d=" % i for i in range(FIELDS)), URLENCODED),
    "web-form-of-ampersands": _of(lambda _: b"&" * MEGABYTE, URLENCODED),
    "web-form-of-equal-signs": _of(lambda _: b"=" * MEGABYTE, URLENCODED),
    "web-form-broken-escapes": _of(lambda _: b"%ZZ=%&%u=%1", URLENCODED),
    "web-form-name-of-a-megabyte": _of(lambda _: b"n" * MEGABYTE + b"=1", URLENCODED),
    "web-form-charset-nonsense": _of(lambda _: b"a=b", f"{URLENCODED}; charset=nonsense"),
}  # fmt: skip
