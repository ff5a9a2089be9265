"""The reverse proxy: a real nginx in front of a real TorchServe."""

import datetime
import ipaddress
import json
import math
import re
import shutil
import signal
import socket
import ssl
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
import requests
import tritonclient.http as triton
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from bench.load.clients import Clients
from bench.load.images import encoded
from bench.servers.limits import fill, memory_limit, small_disk
from bench.servers.stack import Stack, pids
from classifier.headers import HEALTH_CHECK
from marctl.errors import UserError
from marctl.serve.front.nginx import Opening, Proxy
from marctl.serve.front.supervisor import THROUGH
from marctl.serve.front.up import ANSWER
from marctl.serve.ports import why_not
from marctl.serve.processes import lives
from marctl.serve.torchserve.settings import body_limit
from tests.conftest import DIGITS, ROOT, free_port, make
from tests.support.metrics_page import page_when
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wire import said

pytestmark = [pytest.mark.torchserve, pytest.mark.nginx]

BODY = body_limit(ROOT / "config.properties")
HEADER_LIMIT = 2**13
NOWHERE = "http://127.0.0.1:1"
SMALL_CONTAINER = 2**29  # bytes: twice what all of it takes, and less than the largest images need


def started(run, **variables):
    """Run make up on free ports; return the stack and the output."""
    port = free_port()
    door = free_port()
    done = make("up", RUN=str(run), PORT=str(port), DOOR=str(door), RATE="100000", **variables)
    assert done.returncode == 0, done.stderr
    return Stack(door, port, run), done.stdout


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A stack for all tests that leave it as it was."""
    run = tmp_path_factory.mktemp("up")
    running, printed = started(run, EXPLAIN="1")
    assert f"serving model_store/convnet.mar on {running.url}, ready after" in printed
    assert f"curl {running.predictions} -T tests/images/" in printed
    yield running
    make("stop", RUN=str(run))


@pytest.fixture
def own_up(tmp_path):
    """A stack for one test that stops or damages it."""
    yield started(tmp_path / "run")[0]
    make("stop", RUN=str(tmp_path / "run"))


@pytest.fixture
def up_in_a_small_container(tmp_path):
    """A stack with no more memory than a small container has."""
    with memory_limit(SMALL_CONTAINER) as within:
        yield started(tmp_path / "run", within=within)[0]
        make("stop", RUN=str(tmp_path / "run"))


@pytest.fixture
def scratch():
    """A folder that nginx's processes can access; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="door-test-") as folder:
        Path(folder).chmod(THROUGH)
        yield Path(folder)


@pytest.fixture
def door_to(tmp_path, scratch, server):
    """A function that opens a proxy to the shared TorchServe with given rules; all are closed at the end."""
    opened = []

    def door(**rules):
        rules = {"rate": 100_000, "connections": 1000, "body": BODY, "answer": 20} | rules
        opening = Opening(free_port(), server.inference, NOWHERE, scratch, **rules)
        opened.append(Proxy(tmp_path / f"door{len(opened)}"))
        opened[-1].open(opening)
        return opening, opened[-1]

    yield door
    for one in opened:
        one.close()


def blank(side: int) -> bytes:
    """Return a square image that is small to send and, being half transparent, costly to read."""
    return encoded(Image.new("RGBA", (side, side), (0, 0, 0, 128)), "PNG")


def put(opening: Opening, **options) -> requests.Response:
    """Send an image through a proxy."""
    return requests.put(
        f"{opening.address}/predictions/convnet", data=DIGITS["2"], timeout=PATIENCE, **options
    )


def raw(port: int, data: bytes) -> bytes:
    """Send bytes unchanged, and return what is received until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


@pytest.mark.parametrize("digit", DIGITS)
def test_image_gets_its_digit(up, digit):
    """As a raw body, a form field or chunks: the proxy changes no answer."""
    image = DIGITS[digit]
    raw_body = requests.put(up.predictions, data=image, timeout=PATIENCE)
    form = requests.post(up.predictions, files={"data": image}, timeout=PATIENCE)
    chunked = requests.put(up.predictions, data=iter([image[:50], image[50:]]), timeout=PATIENCE)
    version = requests.put(f"{up.predictions}/1.0", data=image, timeout=PATIENCE)
    assert {reply.text for reply in (raw_body, form, chunked, version)} == {digit}


def test_door_is_open_on_both_kinds_of_address(up):
    """IPv4 and IPv6 give the same answer."""
    sixth = ["[::1]"] if why_not(free_port(), "::1") is None else []
    for host in ["127.0.0.1", *sixth]:
        reply = requests.put(
            f"http://{host}:{up.door}/predictions/convnet", data=DIGITS["2"], timeout=PATIENCE
        )
        assert reply.text == "2"


def test_client_is_no_question_of_health(server, door_to):
    """A client that marks its image as a health check is counted like any other."""
    name = "classifier_health_checks_total"
    before = page_when(server, lambda page: page.total(name) >= 1 and page.is_whole)  # from the start by make
    opening, _ = door_to()
    for _ in range(20):
        assert put(opening, headers={HEALTH_CHECK: "1"}).text == "2"
    now = page_when(server, lambda page: page.requests >= before.requests + 20 and page.is_whole)
    assert now.requests >= before.requests + 20
    assert now.total(name) == before.total(name)


def test_page_is_there_and_knows_what_answers(up):
    """GET returns the page and its files; it gets the archive's name and labels."""
    reply = requests.get(f"{up.url}/", timeout=PATIENCE)
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html")
    assert (
        requests.get(f"{up.url}/page/page.js", timeout=PATIENCE).headers["Content-Type"] == "text/javascript"
    )
    told = requests.get(f"{up.url}/page/served.json", timeout=PATIENCE).json()
    assert told == {"models": [{"name": "convnet", "labels": list(DIGITS)}]}


def test_bad_image_is_told_what_to_send(up):
    """The handler's own sentence is passed on."""
    reply = requests.put(up.predictions, data=b"hello", timeout=PATIENCE)
    assert reply.status_code == 400
    assert said(reply).startswith("cannot read 5 bytes")


@pytest.mark.parametrize(
    "path",
    [
        "/predictions/other", "/predictions/convnet/2.0", "/explanations/other", "/v1/models/other:predict",
        "/v2/models/other/infer", "/invocations?model_name=other",
    ],
)  # fmt: skip
def test_missing_model_is_told_of_as_all_errors_are(up, path):
    """TorchServe's own 404, which has another form, is replaced."""
    reply = requests.post(up.url + path, data=DIGITS["2"], timeout=PATIENCE)
    assert reply.status_code == 404
    assert said(reply).startswith("there is no such model")


@pytest.mark.parametrize(
    "path",
    [
        "/models", "/models/convnet", "/models/convnet/invoke", "/convnet/predict", "/metrics",
        "/workflows", "/api-description", "/explanations", "/explanations/convnet/1.0/x", "/predictions",
        "/predictions/", "/predictions/convnet/1.0/x", "/predictions/../models",
        "/predictions/%2e%2e/models", "/predictions/..%2fmodels", "/predictions/con%0d%0avnet",
        "/predictions/convnet:predict", "/health", "/health/x", "//models", "/ping/x", "/pings",
        "/invocations/x", "/invocations/", "/openapi", "/openapi.json/", "/v1", "/v1/models", "/v1/models/",
        "/v1/models/convnet:explain", "/v1/models/convnet:predict/x", "/v1/models/..%2f..%2fmodels:predict",
        "/v1/health/live", "/v2/models", "/v2/models/", "/v2/models/convnet/ready/x",
        "/v2/models/convnet/explain", "/v2/models/convnet/versions", "/v2/models/convnet/versions/1.0/x",
        "/v2/models/convnet/versions/1.0/ready/x", "/v2/models/convnet/versions/1.0/infer/x",
        "/v2/models/convnet/versions/..%2f..%2f..%2fmodels/infer", "/v2/models/../infer", "/v2/health",
        "/v2/health/x",
        "/v2/repository/index", "/v3/models/convnet", "/v2x", "/page", "/page/", "/page/index.html",
        "/page/../models", "/page/x.js", "/page/page.js/x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_nothing_else_is_reached(up, method, path):
    """Every address other than the model's and the server's state is 404."""
    reply = raw(up.door, f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head, _, body = reply.partition(b"\r\n\r\n")
    code = int(head.split()[1])
    assert code in (400, 404)
    error = json.loads(body)["error"]
    if path.startswith("/v2/"):
        assert "; " in error
    else:
        assert error["code"] == code


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/served.json"])
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_page_is_only_read(up, method, path):
    """Any method but GET gets 404."""
    reply = requests.request(method, f"{up.url}{path}", timeout=PATIENCE)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, 404)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        "/predictions/convnet", "/explanations/convnet", "/invocations", "/v1/models/convnet:predict",
        "/v2/models/convnet/infer", "/v2/models/convnet/versions/1.0/infer",
    ],
)  # fmt: skip
def test_only_put_and_post_bring_images(up, path, method):
    """Any other method gets a list of the allowed ones."""
    reply = requests.request(method, up.url + path, timeout=PATIENCE)
    assert (reply.status_code, reply.headers["Allow"]) == (405, "PUT, POST")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/ping", "/health/ready", "/v2", "/v2/health/live", "/v1/models/convnet", "/v2/models/convnet",
        "/v2/models/convnet/ready", "/v2/models/convnet/versions/1.0",
        "/v2/models/convnet/versions/1.0/ready",
        "/openapi.json",
    ],
)  # fmt: skip
def test_what_is_told_is_only_asked_for(up, path, method):
    """Addresses that take no input allow only GET."""
    assert requests.get(up.url + path, timeout=PATIENCE).ok
    assert requests.request(method, up.url + path, data=DIGITS["2"], timeout=PATIENCE).status_code == 404


INFER, INFER_VERSION = "/v2/models/convnet/infer", "/v2/models/convnet/versions/1.0/infer"
NOTHING, NO_MODEL = "there is nothing at this address; ", "there is no such model, or no such version of it; "
WEB_FORM, LARGE_FORM = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
REFUSED_IN_V2 = {
    "nothing-there": (404, "POST /v2/models/convnet/explain", "", NOTHING),
    "sent-where-one-asks": (404, "POST /v2/models/convnet/ready", "", NOTHING),
    "no-model": (404, "POST /v2/models/other/infer", "", NO_MODEL),
    "no-version": (404, "POST /v2/models/convnet/versions/2.0/infer", "", NO_MODEL),
    "no-model-to-tell-of": (404, "GET /v2/models/other", "", NO_MODEL),
    "no-model-ready": (404, "GET /v2/models/other/ready", "", NO_MODEL),
    "no-version-ready": (404, "GET /v2/models/convnet/versions/2.0/ready", "", NO_MODEL),
    "method": (405, f"GET {INFER}", "", "GET cannot be used to send an image; use PUT or POST"),
    "method-of-a-version": (405, f"PATCH {INFER_VERSION}", "", "PATCH cannot be used to send"),
    "length": (413, f"POST {INFER}", f"Content-Length: {BODY + 1}\r\n", "the body is too large; send at"),
    "web-form": (400, f"POST {INFER}", f"Content-Type: {WEB_FORM}\r\n", "a URL-encoded form cannot hold"),
    "large-form": (413, f"POST {INFER}", f"Content-Type: {LARGE_FORM}\r\nContent-Length: {BODY}\r\n",
        "the form is too large, or has no Content-Length; send"),
    "header": (400, f"POST {INFER}", f"X: {'a' * 5 * HEADER_LIMIT}\r\n", "the request is not valid HTTP, or"),
    "body": (400, f"POST {INFER}", "Content-Length: 5\r\n\r\nhello", "cannot read 5 bytes starting b'hell'"),
    "json": (400, f"POST {INFER}", "Content-Length: 1\r\n\r\n{", "the body is not valid JSON ("),
    "json-of-a-version": (400, f"POST {INFER_VERSION}", "Content-Length: 1\r\n\r\n{", "the body is not"),
    "two-slashes": (400, f"POST /{INFER}", "Content-Length: 5\r\n\r\nhello", "cannot read 5 bytes starting"),
    "by-another-way": (400, f"POST /x/..{INFER}", "Content-Length: 5\r\n\r\nhello", "cannot read 5 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_IN_V2)
def test_errors_of_v2_are_texts(up, name):
    """The protocol requires this, whether nginx, the health service or the handler refuses."""
    code, asked, rest, sentence = REFUSED_IN_V2[name]
    reply = raw(up.door, f"{asked} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{rest}\r\n".encode())
    head, _, body = reply.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == code
    told = json.loads(body)
    assert set(told) == {"error"}
    assert told["error"].startswith(sentence)


@pytest.mark.parametrize("path", ["/predictions/convnet", "/v1/models/convnet:predict"])
def test_client_does_not_say_whose_address_it_asks(up, path):
    """Only the proxy sets the header that tells the handler the protocol."""
    for url, in_v2 in ((f"{up.url}{path}", False), (f"{up.url}{INFER}", True)):
        for protocol in ("v2", "other"):
            reply = requests.post(
                url, data=b'{"inputs": []}', headers={"X-Protocol": protocol}, timeout=PATIENCE
            )
            assert (reply.status_code, isinstance(reply.json()["error"], str)) == (400, in_v2)


def test_v2_is_told_to_come_again_in_a_text(door_to):
    """So it is for too many requests, a closing proxy and an unavailable server."""
    opening, _ = door_to(rate=5)
    replies = [requests.post(f"{opening.address}{INFER}", data=b"{", timeout=PATIENCE) for _ in range(20)]
    often = next(reply for reply in replies if reply.status_code == 429)
    assert often.headers["Retry-After"] == "1"
    assert often.json()["error"].startswith("too many requests or connections from this address; send")
    opening.closed.touch()
    closed = requests.post(f"{opening.address}{INFER}", data=b"{", timeout=PATIENCE)
    # There is no health service.
    unknown = requests.get(f"{opening.address}/v2/models/convnet/ready", timeout=PATIENCE)
    for reply in (closed, unknown):
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
        assert reply.json()["error"].startswith("no worker can answer now; try again in 2 seconds")


@pytest.mark.parametrize("path", ["/predictions/convnet", "/explanations/convnet", "/invocations"])
def test_query_of_a_client_is_no_header(up, path):
    """The handler gets the real query, whatever header of that name a client sends."""
    headers = {"X-Query": "top_k=99&target=none"}
    bad = requests.put(f"{up.url}{path}?format=xml", data=DIGITS["2"], headers=headers, timeout=PATIENCE)
    if not path.startswith("/explanations"):
        assert requests.put(up.url + path, data=DIGITS["2"], headers=headers, timeout=PATIENCE).text == "2"
    assert said(bad).startswith("format is 'xml'")


def test_too_large_body_is_refused_before_it_is_sent(up):
    """The declared length alone is enough; the error gives the limit."""
    head = "PUT /predictions/convnet HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    reply = raw(up.door, f"{head}Content-Length: {BODY + 1}\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert f"send at most {BODY} bytes".encode() in reply


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"GET /" + b"a" * 5 * HEADER_LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5 * HEADER_LIMIT + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["no-http", "long-address", "long-header", "no-host"],
)
def test_malformed_request_gets_a_sentence(up, request_bytes):
    """Requests that are not valid HTTP, or too long, get a sentence."""
    reply = raw(up.door, request_bytes)
    assert b" 400 " in reply.splitlines()[0] or b" 414 " in reply.splitlines()[0]
    assert b'"hint"' in reply


def test_two_lengths_are_refused(up):
    """An ambiguous request, which two servers could parse differently, is passed on to neither."""
    body = DIGITS["2"]
    both = (
        f"PUT /predictions/convnet HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert b" 400 " in raw(up.door, both.encode() + body).splitlines()[0]


def test_too_many_requests_are_told_to_wait(door_to):
    """Requests above the limit per address get 429 with Retry-After."""
    opening, _ = door_to(rate=5)
    replies = [put(opening) for _ in range(20)]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert refused
    assert {reply.text for reply in replies if reply.ok} == {"2"}
    assert refused[0].headers["Retry-After"] == "1"
    assert refused[0].json()["error"]["hint"].startswith("send at most 5 requests a second")


def test_too_many_connections_are_told_to_wait(door_to):
    """Slow senders of one address get only their share; others are still answered."""
    opening, _ = door_to(connections=3)
    head = b"PUT /predictions/convnet HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nslow"
    slow = [socket.create_connection(("127.0.0.1", opening.port)) for _ in range(3)]
    try:
        for connection in slow:
            connection.sendall(head)
        wait_until(lambda: put(opening).status_code == 429)
    finally:
        for connection in slow:
            connection.close()
    wait_until(lambda: put(opening).ok)


def test_slow_sender_is_sent_away(door_to):
    """A body that stalls for ten seconds ends its connection."""
    opening, _ = door_to()
    head = b"PUT /predictions/convnet HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nslow"
    raw(opening.port, head)  # it returns when the connection has ended


def test_server_that_is_away_is_503_and_when_to_come_again(tmp_path, scratch):
    """Without a server behind the proxy: a sentence with Retry-After, not nginx's page."""
    nothing = Opening(free_port(), f"http://127.0.0.1:{free_port()}", NOWHERE, scratch, BODY, 20, 100, 100)
    door = Proxy(tmp_path / "door")
    door.open(nothing)
    try:
        reply = put(nothing)
    finally:
        door.close()
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
    assert reply.json()["error"]["message"] == "no worker can answer now"


def test_door_speaks_tls(door_to, tmp_path):
    """With a certificate and its key the same proxy serves HTTPS, TLS 1.2 and newer."""
    folder = tmp_path / "it's a \"b; {c} $d"  # nginx must not interpret any of it
    folder.mkdir()
    certificate, key = self_signed(folder)
    opening, _ = door_to(certificate=certificate, key=key)
    reply = put(opening, verify=str(certificate))
    assert (opening.address[:8], reply.text) == ("https://", "2")
    with socket.create_connection(("127.0.0.1", opening.port)) as connection:
        trusting = ssl.create_default_context(cafile=str(certificate))
        with trusting.wrap_socket(connection, server_hostname="127.0.0.1") as secure:
            assert secure.version() == "TLSv1.3"


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now,
                                now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "cert.pem", folder / "key.pem"


def test_missing_nginx_is_named(tmp_path, monkeypatch):
    """The error says what to install."""
    monkeypatch.setattr("marctl.serve.front.nginx.PROGRAM", "no-such-nginx")
    with pytest.raises(UserError, match="apt-get install nginx-light"):
        Proxy(tmp_path).open(Opening(free_port(), NOWHERE, NOWHERE, tmp_path, BODY, 20, 100, 100))


def test_taken_port_is_named(up):
    """A second proxy on the same port reports which process holds it."""
    done = make("up", RUN=str(up.run.parent / "second"), PORT=str(free_port()), DOOR=str(up.door))
    assert f"port {up.door} is taken by process" in done.stderr
    assert up.status("/health/ready") == 200


def test_second_start_says_that_it_runs(up):
    """Only one proxy can run per folder."""
    done = make("up", RUN=str(up.run), PORT=str(free_port()), DOOR=str(free_port()))
    assert f"supervises a server here on {up.url}; stop it first: make stop RUN={up.run}" in done.stderr
    assert done.returncode != 0


def test_ready_and_live_answer(up):
    """Both are 200 while all is well."""
    assert requests.get(f"{up.url}/health/ready", timeout=PATIENCE).json() == {"status": "ready"}
    assert requests.get(f"{up.url}/health/live", timeout=PATIENCE).json() == {"status": "live"}


def test_dead_workers_are_not_ready(own_up):
    """If workers die whenever they load, TorchServe stays Healthy, but /health/ready does not."""
    [handler] = own_up.scratch.glob("models/*/convnet_handler.py")
    handler.write_text("raise RuntimeError('it does not load')\n")
    for worker in own_up.workers:
        worker.kill()
    wait_until(lambda: own_up.status("/health/ready") == 503)
    assert requests.get(f"{own_up.inference}/ping", timeout=PATIENCE).json() == {"status": "Healthy"}
    said = requests.get(f"{own_up.url}/health/ready", timeout=PATIENCE).json()["error"]["message"]
    assert said == "0 of 2 workers of convnet 1.0 are ready"
    with triton.InferenceServerClient(f"127.0.0.1:{own_up.door}", connection_timeout=PATIENCE) as client:
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("convnet")
        assert not client.is_model_ready("convnet", "1.0")
    for path in ("/v2/health/ready", "/v2/models/convnet/ready", "/v2/models/convnet/versions/1.0/ready"):
        reply = requests.get(f"{own_up.url}{path}", timeout=PATIENCE)
        assert (reply.status_code, set(reply.json())) == (503, {"error"})
        assert reply.json()["error"].startswith("0 of 2 workers of convnet 1.0 are ready; wait, or send the")
    assert own_up.status("/health/live") == 200


def test_no_workers_are_not_ready(own_up):
    """A model scaled down to no workers is not ready, whatever /ping says."""
    none = f"{own_up.management}/models/convnet?min_worker=0&max_worker=0&synchronous=true"
    assert requests.put(none, timeout=PATIENCE).ok
    wait_until(lambda: own_up.status("/health/ready") == 503)
    assert requests.get(f"{own_up.inference}/ping", timeout=PATIENCE).json() == {"status": "Healthy"}


def test_stop_loses_no_answer(own_up):
    """During make stop, accepted requests are answered, and new ones get 503."""
    with Clients(own_up.door, DIGITS, leave_when_refused=True) as clients:
        wait_until(lambda: clients.right > 200)
        done = make("stop", RUN=str(own_up.run))
    assert done.stdout.strip() == "stopped"
    assert clients.wrong == []
    assert set(clients.failed) <= {"503, Retry-After 2"}
    assert why_not(own_up.door) is None


def taken_in_by(port: int) -> HTTPConnection:
    """Send an image, and return the connection once nginx has accepted the request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.putrequest("PUT", "/predictions/convnet")
    connection.putheader("Content-Length", str(len(DIGITS["2"])))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100 ")
    connection.send(DIGITS["2"])
    return connection


def test_stop_waits_for_what_was_taken_in(own_up):
    """An image that a worker is processing when the stop begins is still answered."""
    for worker in own_up.workers:
        worker.suspend()
    with ThreadPoolExecutor() as pool:
        taken_in = taken_in_by(own_up.door)
        stop = pool.submit(make, "stop", RUN=str(own_up.run))
        time.sleep(2)  # the stop has begun; if it begins later, the image is answered anyway
        for worker in own_up.workers:
            worker.resume()
        assert taken_in.getresponse().read() == b"2"
        taken_in.close()
        assert stop.result().stdout.strip() == "stopped"


def test_killed_worker_costs_no_answer(own_up):
    """One worker with requests is killed every second: the other one answers them."""
    with Clients(own_up.door, DIGITS) as clients:
        for _ in range(8):
            wait_until(lambda: len(own_up.workers) == 2)
            wait_until(lambda: own_up.status("/health/ready") == 200)
            own_up.workers[0].kill()
            time.sleep(1)
    assert clients.right > 200
    assert (clients.wrong, dict(clients.failed)) == ([], {})


def test_kernel_ends_a_worker_before_java(up):
    """If memory runs out, a worker is killed: the other one answers its requests."""
    java = int(Path(f"/proc/{up.java.pid}/oom_score_adj").read_text())
    workers = [int(Path(f"/proc/{worker.pid}/oom_score_adj").read_text()) for worker in up.workers]
    assert workers == [1000, 1000]
    assert java < 1000


@pytest.mark.root
def test_image_beyond_the_memory_costs_no_answer(up_in_a_small_container):
    """It is refused as too large, a smaller one is answered, and no process dies."""
    up = up_in_a_small_container
    before = pids(up)
    with Clients(up.door, DIGITS, count=8) as clients:
        wait_until(lambda: clients.right > 200)
        too_large = requests.put(up.predictions, data=blank(8000), timeout=PATIENCE)
        told = too_large.json()["error"]
        most = int(re.search(r"send at most ([\d,]+) pixels", told["hint"])[1].replace(",", ""))
        smaller = requests.put(up.predictions, data=blank(math.isqrt(most) * 3 // 4), timeout=PATIENCE)
    assert (too_large.status_code, smaller.status_code) == (400, 200)
    assert told["message"].startswith(
        "the image is too large (8000 x 8000 pixels): reading it may take 640 MB of memory, but "
    )
    assert pids(up) == before
    assert (clients.wrong, dict(clients.failed)) == ([], {})


def test_killed_java_is_started_again(own_up):
    """No answer is wrong or truncated: clients get 503 with Retry-After until it is back."""
    with Clients(own_up.door, DIGITS) as clients:
        wait_until(lambda: clients.right > 200)
        own_up.java.send_signal(signal.SIGKILL)
        wait_until(lambda: own_up.status("/health/live") == 503)
        wait_until(lambda: own_up.status("/health/ready") == 200)
        before = clients.right
        wait_until(lambda: clients.right > before + 200)
    assert clients.wrong == []
    assert set(clients.failed) == {"503, Retry-After 2"}


def test_stopped_worker_costs_no_answer(own_up):
    """The requests of a stopped worker are retried, which costs only time."""
    worker = own_up.workers[0]
    with Clients(own_up.door, DIGITS) as clients:
        wait_until(lambda: clients.right > 200)
        worker.suspend()
        try:
            wait_until(lambda: clients.longest > ANSWER)
        finally:
            worker.resume()
    assert (clients.wrong, dict(clients.failed)) == ([], {})


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """The archive with a TorchServe that gives up on a worker after five seconds."""
    folder = tmp_path_factory.mktemp("impatient")
    config = folder / "model-config.yaml"
    contract = (ROOT / "model" / "model-config.yaml").read_text()
    assert "responseTimeout: 120" in contract
    config.write_text(contract.replace("responseTimeout: 120", "responseTimeout: 5"))
    built = make("archive", MAR=str(folder / "convnet.mar"), CONFIG=str(config))
    assert built.returncode == 0, built.stderr
    return folder / "convnet.mar"


def test_worker_that_is_given_up_costs_no_answer(tmp_path, impatient):
    """A worker stopped beyond responseTimeout is replaced; the other one answers its requests."""
    running, _ = started(tmp_path / "run", MARS=str(impatient))
    try:
        stopped = running.workers[0]
        with Clients(running.door, DIGITS) as clients:
            wait_until(lambda: clients.right > 200)
            stopped.suspend()
            wait_until(lambda: not lives(stopped))
            wait_until(lambda: len(running.workers) == 2 and running.is_ready)
        assert (clients.wrong, dict(clients.failed)) == ([], {})
    finally:
        make("stop", RUN=str(running.run))


@pytest.mark.root
def test_full_disk_costs_no_answer(tmp_path):
    """With no room for logs, images are still answered, also after a worker dies."""
    with small_disk(tmp_path / "run") as run:
        running, _ = started(run)
        try:
            with Clients(running.door, DIGITS) as clients:
                wait_until(lambda: clients.right > 200)
                fill(run)
                for _ in range(100):
                    assert (
                        requests.put(running.predictions, data=b"hello", timeout=PATIENCE).status_code == 400
                    )
                running.workers[0].kill()
                wait_until(lambda: len(running.workers) == 2 and running.is_ready)
                before = clients.right
                wait_until(lambda: clients.right > before + 200)
            assert (clients.wrong, dict(clients.failed)) == ([], {})
        finally:
            assert make("stop", RUN=str(run)).stdout.strip() == "stopped"
        assert why_not(running.door) is None


@pytest.mark.root
def test_java_that_dies_on_a_full_disk_comes_back(tmp_path):
    """It is back at the latest when there is room again; until then clients get Retry-After."""
    with small_disk(tmp_path / "run") as run:
        running, _ = started(run)
        try:
            full = fill(run)
            with Clients(running.door, DIGITS, count=4) as clients:
                running.java.kill()
                wait_until(lambda: running.status("/health/live") == 503)
                wait_until(lambda: clients.failed)
                full.unlink()
                wait_until(lambda: running.is_ready)
                before = clients.right
                wait_until(lambda: clients.right > before + 200)
            assert clients.wrong == []
            assert set(clients.failed) == {"503, Retry-After 2"}
        finally:
            assert make("stop", RUN=str(run)).stdout.strip() == "stopped"


def test_archive_that_was_spoilt_costs_no_answer(tmp_path):
    """A copy is served: with a corrupt file in the archive's place it still restarts."""
    archive = tmp_path / "convnet.mar"
    shutil.copy(ROOT / "model_store" / "convnet.mar", archive)
    run = tmp_path / "run"
    running, _ = started(run, MARS=str(archive))
    try:
        archive.write_bytes(b"no archive")
        running.java.kill()
        wait_until(lambda: running.status("/health/live") == 503)
        wait_until(lambda: running.status("/health/ready") == 200)
        assert requests.put(running.predictions, data=DIGITS["2"], timeout=PATIENCE).text == "2"
    finally:
        make("stop", RUN=str(run))


def test_killed_keeper_leaves_nothing_that_cannot_be_stopped(own_up):
    """Without the supervisor the proxy and the server keep running, and make stop ends them."""
    keeper = psutil.Process(json.loads((own_up.run / "keeper.json").read_text())["pid"])
    java = own_up.java
    keeper.kill()
    assert requests.put(own_up.predictions, data=DIGITS["2"], timeout=PATIENCE).text == "2"
    assert own_up.status("/health/ready") == 503
    assert make("stop", RUN=str(own_up.run)).stdout.strip() == "stopped"
    assert not lives(java)
    assert why_not(own_up.door) is None


def test_temporary_folder_of_any_name(tmp_path):
    """TMPDIR's name is never read as configuration; one that nginx cannot use is refused."""
    run = tmp_path / "run"
    # Not in the test's own folder, whose path is too long for a worker's socket.
    with tempfile.TemporaryDirectory(prefix="it's \"b;{c} ") as odd:
        Path(odd).chmod(THROUGH)  # if root starts nginx, its workers run as nobody
        try:
            up, _ = started(run, TMPDIR=odd)
            assert requests.put(up.predictions, data=DIGITS["3"], timeout=PATIENCE).text == "3"
            assert requests.get(f"{up.url}/", timeout=PATIENCE).text.startswith("<!doctype html>")
        finally:
            make("stop", RUN=str(run))
    with tempfile.TemporaryDirectory(prefix="a$b") as odd:
        done = make("up", RUN=str(run), TMPDIR=odd, PORT=str(free_port()), DOOR=str(free_port()))
        assert done.stderr.startswith(f"error: nginx cannot use the path '{odd}/")


def test_missing_certificate_is_named(tmp_path):
    """The error has the name that was given."""
    ports = {"PORT": str(free_port()), "DOOR": str(free_port())}
    done = make("up", RUN=str(tmp_path / "run"), TLS_CERT="none.pem", TLS_KEY="none.pem", **ports)
    assert done.stderr.startswith("error: TLS needs a PEM file, and there is none at none.pem\n")


def test_tls_takes_both_files(tmp_path):
    """A certificate without a key is refused."""
    ports = {"PORT": str(free_port()), "DOOR": str(free_port())}
    done = make("up", RUN=str(tmp_path / "run"), TLS_CERT="a.pem", **ports)
    assert "TLS needs a certificate and its key" in done.stderr
