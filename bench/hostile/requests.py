"""Malformed and malicious requests, as bytes on the wire, by what is wrong with them."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, repeat

from bench.hostile.forms import FORMS, Make

PATH = "/predictions/convnet"
MEGABYTE, GIGABYTE = 2**20, 2**30
LONG = 300  # characters; a name may have fewer
MANY = 5000  # header lines


@dataclass(frozen=True)
class Hostile:
    """One request: its name, and how to make its pieces."""

    name: str
    pieces: Callable[[], Iterable[bytes]]
    method: str = "PUT"
    half_close: bool = False  # the client is cut off after its last byte
    unfinished: bool = False  # or keeps waiting, and sends nothing more
    pause: float = 0.0  # seconds between two pieces

    @property
    def may_be_dropped(self) -> bool:
        """Whether closing the connection is as good as an answer: nobody reads one, or nothing was asked."""
        return self.half_close or self.unfinished


def hostile_requests(good: bytes) -> dict[str, list[Hostile]]:
    """Return all requests by kind; `good` is a good image."""
    return {
        "malformed forms": list(_forms(good)),
        "hostile JSON": list(_json(good)),
        "wrong lengths": list(_lengths(good)),
        "names and versions": [_get(f"name-{name[:40]!a}", name, good) for name in NAMES],
        "header floods": list(_headers(good)),
        "methods and targets": list(_methods()),
        "bodies of a gigabyte": list(_gigabytes()),
        "slow senders": list(_slow(good)),
    }


def request(
    body: bytes = b"",
    *headers: str | bytes,
    target: str | bytes = PATH,
    method: str = "PUT",
    length: int | None = None,
) -> bytes:
    """Return a request; its Content-Length is right unless `length` is given, which may be -1 for none."""
    target = target if isinstance(target, bytes) else target.encode()
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"Host: a", b"Connection: close"]
    lines += [line if isinstance(line, bytes) else line.encode() for line in headers]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}".encode())
    return b"\r\n".join([*lines, b"", body])


def chunked(pieces: Iterable[bytes], last: bytes = b"0\r\n\r\n") -> Iterator[bytes]:
    """Yield pieces in HTTP/1.1's chunked encoding."""
    for piece in pieces:
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    yield last


def _one(name: str, sent: bytes, *, method: str = "PUT", half_close: bool = False) -> Hostile:
    return Hostile(name, lambda: [sent], method, half_close)


def _forms(good: bytes) -> Iterator[Hostile]:
    for name, (kind, make) in FORMS.items():
        yield Hostile(name, partial(_form, make, good, kind))


def _form(make: Make, good: bytes, kind: str) -> list[bytes]:
    return [request(make(good), f"Content-Type: {kind}")]


def _json(good: bytes) -> Iterator[Hostile]:
    """Yield JSON that costs more to read than to send, and JSON that no parser agrees on."""
    image = base64.b64encode(good)
    addresses = (PATH, "/v1/models/convnet:predict", "/v2/models/convnet/infer", "/invocations")
    for number, (name, body) in enumerate({
        "open-lists": b"[" * MEGABYTE,
        "open-objects": b'{"a":' * 200_000,
        "deep-and-closed": b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "million-empty-lists": b'{"instances":[' + b"[]," * 1_000_000 + b"[]]}",
        "million-instances": b'{"instances":[' + b'"",' * 1_000_000 + b'""]}',
        "million-keys": b"{" + b",".join(b'"%d":0' % key for key in range(1_000_000)) + b"}",
        "million-digits": b'{"instances":' + b"9" * MEGABYTE + b"}",
        "keys-of-one-name": b'{"instances":[],"instances":["' + image + b'"]}',
        "nan": b'{"inputs":[{"shape":[1],"datatype":"FP32","data":[NaN,Infinity,-Infinity]}]}',
        "shape-of-all": b'{"inputs":[{"shape":[9223372036854775807],"datatype":"FP32","data":[]}]}',
        "zero-byte": b'{"instances":["' + image + b'\0"]}',
        "utf-16": '{"instances":[]}'.encode("utf-16"),
        "half-a-character": b'{"instances":["\\ud800"]}',
        "base64-of-ten-megabytes": b'{"instances":["' + b"A" * 10_000_000 + b'"]}',
        "base64-of-nothing": b'{"instances":["' + b"=" * MEGABYTE + b'"]}',
        "blanks": b" " * MEGABYTE + b'{"instances":["' + image + b'"]}',
    }.items()):  # fmt: skip
        target = addresses[number % len(addresses)]
        yield _one(name, request(body, "Content-Type: application/json", target=target, method="POST"))
    for name, said in {"negative": "-1", "too-long": "9" * 30, "text": "x", "two": "1, 2"}.items():
        header = f"Inference-Header-Content-Length: {said}"
        sent = request(b'{"inputs":[]}', header, target=addresses[2], method="POST")
        yield _one(f"json-length-{name}", sent)
    for accept in ("application/json;" * 400, "application/json; top_k=" + "9" * 4000, "*/*;q=" + "1" * 4000):
        yield _one(f"accept-{accept[-5:]}", request(good, f"Accept: {accept}"))


def _lengths(good: bytes) -> Iterator[Hostile]:
    yield _one("too-short", request(good, length=len(good) // 2))
    yield _one("nothing", request(good, length=0))
    yield _one("too-long-and-cut-off", request(good, length=len(good) + 1000), half_close=True)
    yield _one("none", request(good, length=-1))
    for value in ("-1", "+5", "0x10", "1e3", "9" * 30, "5, 5", "5, 6", "", " ", "5;5", "٣"):
        yield _one(f"value-{value!a}", request(good, f"Content-Length: {value}", length=-1))
    yield _one("two-that-differ", request(good, f"Content-Length: {len(good) - 1}"))
    encoding = "Transfer-Encoding: chunked"
    whole = b"".join(chunked([good]))
    yield _one("both", request(whole, encoding))
    codings = ("chunked, chunked", "gzip, chunked", "xchunked", "chunked\x0b", "identity", "CHUNKED")
    for value in codings:
        yield _one(f"encoding-{value!a}", request(whole, f"Transfer-Encoding: {value}", length=-1))
    sizes = ("-1", "0x5", "f" * 17, "ffffffff", "7fffffffffffffff", "g", "", " 5", "5 ;a=" + "b" * 9000)
    for size in sizes:
        body = f"{size}\r\n".encode() + good + b"\r\n0\r\n\r\n"
        yield _one(f"chunk-size-{size[:20]!a}", request(body, encoding, length=-1), half_close=True)
    yield _one("chunks-of-a-byte", request(b"".join(chunked(bytes([b]) for b in good)), encoding, length=-1))
    yield _one("no-last-chunk", request(whole[:-5], encoding, length=-1), half_close=True)
    trailers = b"0\r\nX: " + b"a" * 1000 + b"\r\n" + b"Y: b\r\n" * MANY + b"\r\n"
    yield _one("trailers", request(b"".join(chunked([good], trailers)), encoding, length=-1))
    yield _one("line-feeds-alone", request(good).replace(b"\r\n", b"\n", 5))


NAMES = (
    "..%2f..%2fmodels", "..%5c..%5cmodels", "%2e%2e/models", "....//models", "convnet%00",
    "convnet%00.png", "%00", "convnet//1.0", "//convnet", "convnet/..", "convnet/../../models",
    "convnet/..%2f..%2fmodels", "convnet;a=b", "convnet;/1.0", "convnet/1.0;x", "convnet\\1.0",
    "..\\..\\models", "convnet%5c", "con%0avnet", "con%0d%0aX:%20y", "%c5%bfonvnet", "%c3%a9", "%e2%80%ae",
    "convnet%e2%80%8b", "%ff%fe", "%f0%9f%98%80", "%", "%z", "%2", "%u0063onvnet", "convnet%20",
    "%20convnet", "convnet%09", "CONVNET", "convnet.", "convnet/1.0/..", "convnet/-1",
    "convnet/" + "9" * LONG, "a" * LONG, "a" * 7000, "a" * 20_000, "convnet/" + "a/" * 1000,
    "convnet?" + "a=b&" * 1500, "convnet?%00", "convnet?a=%ff", "convnet?body=x",
    "convnet?content-type=x", "convnet#x", "{{7*7}}", "$%7bjndi:ldap:a%7d", "'%20or%201=1",
    "%3cscript%3e", "convnet/1.0?" + "&".join(f"f{i}" for i in range(900)), "%63%6f%6e%76%6e%65%74",
    "convnet%252f1.0",
)  # fmt: skip


def _get(title: str, name: str, good: bytes) -> Hostile:
    return _one(title, request(good, target=f"/predictions/{name}"))


def _headers(good: bytes) -> Iterator[Hostile]:
    yield _one("thousands", request(good, *(f"X-{i}: a" for i in range(MANY))))
    yield _one("thousands-of-one-name", request(good, *repeat("Accept: a", MANY)))
    yield _one("one-of-a-megabyte", request(good, "X: " + "a" * MEGABYTE))
    yield _one("just-below-the-limit", request(good, *(f"X-{i}: {'a' * 7000}" for i in range(3))))
    yield _one("name-of-a-megabyte", request(good, "a" * MEGABYTE + ": x"))
    yield _one("no-colon", request(good, "nothing"))
    yield _one("no-name", request(good, ": a"))
    yield _one("zero-byte", request(good, b"X: a\0b"))
    yield _one("not-utf-8", request(good, b"X: \xff\xfe", b"Content-Type: \xe9"))
    yield _one("folded", request(good, "X: a\r\n b"))
    yield _one("two-hosts", request(good, "Host: b"))
    yield _one("host-elsewhere", request(good).replace(b"Host: a", b"Host: ../../etc"))
    yield _one("expect-nonsense", request(good, "Expect: 200-ok"))
    yield _one("expect-continue", request(good, "Expect: 100-continue"))
    yield _one("upgrade", request(good, "Upgrade: h2c, websocket", "HTTP2-Settings: AAMAAABkAAQAAP__"))
    yield _one("range", request(good, "Range: bytes=" + ",".join(f"{i}-" for i in range(500))))
    for name in ("describe", "explain", "ts_request_sequence_id", "X-Forwarded-For", "te", "Authorization"):
        yield _one(f"meaning-{name}", request(good, f"{name}: True"))
    for kind in ("", ";", "multipart", "a/b; charset=x", "text/plain; charset=\x7f", "a" * 7000):
        yield _one(f"type-{kind[:20]!a}", request(good, f"Content-Type: {kind}"))
    yield _one("zipped-zeros", request(gzip.compress(bytes(100 * MEGABYTE)), "Content-Encoding: gzip"))


def _methods() -> Iterator[Hostile]:
    known = ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "DELETE", "PATCH", "PROPFIND")
    for method in (*known, "put", "A" * 9000, "P\0T"):
        yield _one(f"method-{method[:20]!a}", request(method=method), method=method)
    targets = (
        "*", "", "predictions/convnet", "http://a/predictions/convnet", "http://127.0.0.1:8081/models",
        "//a/models", "http://", "/\0", "/" * 5000, "/predictions/convnet HTTP/1.1\r\nX: y", "a:443",
        "/?/predictions/convnet", "/%2fpredictions%2fconvnet", "/predictions/convnet/../../models",
        "/health/ready/../../models", "/health/ready%00",
    )  # fmt: skip
    for target in targets:
        yield _one(f"target-{target[:40]!a}", request(target=target))
    for version in (b"HTTP/0.9", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1.1", b"HTTP/", b"ICY"):
        yield _one(f"version-{version!a}", request().replace(b"HTTP/1.1", version, 1))
    yield _one("tls-hello", bytes.fromhex("16030100c8010000c40303") + bytes(200))
    yield _one("http-2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64))
    yield _one("zeros", bytes(10_000))
    yield _one("line-ends", b"\r\n" * 5000, half_close=True)


def _gigabytes() -> Iterator[Hostile]:
    zeros = bytes(MEGABYTE)

    def stream(head: bytes, *, as_chunks: bool) -> Iterator[bytes]:
        yield head
        pieces = repeat(zeros, GIGABYTE // MEGABYTE)
        yield from chunked(pieces) if as_chunks else pieces

    kinds = {"raw": "application/octet-stream", "form": "multipart/form-data; boundary=b"}
    for name, kind in kinds.items():
        known = request(b"", f"Content-Type: {kind}", length=GIGABYTE)
        unknown = request(b"", f"Content-Type: {kind}", "Transfer-Encoding: chunked", length=-1)
        yield Hostile(f"{name}-with-its-length", partial(stream, known, as_chunks=False))
        yield Hostile(f"{name}-in-chunks", partial(stream, unknown, as_chunks=True))


def _slow(good: bytes) -> Iterator[Hostile]:
    """Yield slow senders: ten pieces, half a second apart, or a part of the request and then nothing."""
    sent = request(good)
    head = sent.index(b"\r\n\r\n")
    places = [*range(0, head, -(-head // 5)), *range(head, len(sent), -(-(len(sent) - head) // 5)), len(sent)]
    pieces = [sent[begin:end] for begin, end in pairwise(places)]
    yield Hostile("head-and-body-in-drops", lambda: pieces, pause=0.5)
    yield Hostile("head-that-stops", lambda: [sent[:20]], unfinished=True)
    yield Hostile("body-that-stops", lambda: [sent[:-20]], unfinished=True)
