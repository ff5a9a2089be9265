"""The reverse proxy: a real nginx before a real TorchServe."""

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
SMALL_CONTAINER = 2**29  # bytes: twice what all of it takes, and less than the largest images want


def started(run, **variables):
    """Run make up on free ports; return what it started, and what it printed."""
    port = free_port()
    door = free_port()
    done = make("up", RUN=str(run), PORT=str(port), DOOR=str(door), RATE="100000", **variables)
    assert done.returncode == 0, done.stderr
    return Stack(door, port, run), done.stdout


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """One for all tests after which it is as it was."""
    run = tmp_path_factory.mktemp("up")
    running, printed = started(run, EXPLAIN="1")
    assert f"serving model_store/convnet.mar on {running.url}, ready after" in printed
    assert f"curl {running.predictions} -T tests/images/" in printed
    yield running
    make("stop", RUN=str(run))


@pytest.fixture
def own_up(tmp_path):
    """One for a test that ends or harms it."""
    yield started(tmp_path / "run")[0]
    make("stop", RUN=str(tmp_path / "run"))


@pytest.fixture
def up_in_a_small_container(tmp_path):
    """One that may have no more memory than a small container gives."""
    with memory_limit(SMALL_CONTAINER) as within:
        yield started(tmp_path / "run", within=within)[0]
        make("stop", RUN=str(tmp_path / "run"))


@pytest.fixture
def scratch():
    """A folder that nginx's processes reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="door-test-") as folder:
        Path(folder).chmod(THROUGH)
        yield Path(folder)


@pytest.fixture
def door_to(tmp_path, scratch, server):
    """A function that opens a door to the shared TorchServe, by its own rules; all are closed at the end."""
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
    """Return a square image that takes little to send and, as all half transparent ones, much to read."""
    return encoded(Image.new("RGBA", (side, side), (0, 0, 0, 128)), "PNG")


def put(opening: Opening, **options) -> requests.Response:
    """Send an image through a door."""
    return requests.put(
        f"{opening.address}/predictions/convnet", data=DIGITS["2"], timeout=PATIENCE, **options
    )


def raw(port: int, data: bytes) -> bytes:
    """Send bytes as they are, and return what comes until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


@pytest.mark.parametrize("digit", DIGITS)
def test_image_gets_its_digit(up, digit):
    """Raw, as a form's field and in chunks: the door changes no answer."""
    image = DIGITS[digit]
    raw_body = requests.put(up.predictions, data=image, timeout=PATIENCE)
    form = requests.post(up.predictions, files={"data": image}, timeout=PATIENCE)
    chunked = requests.put(up.predictions, data=iter([image[:50], image[50:]]), timeout=PATIENCE)
    version = requests.put(f"{up.predictions}/1.0", data=image, timeout=PATIENCE)
    assert {reply.text for reply in (raw_body, form, chunked, version)} == {digit}


def test_door_is_open_on_both_kinds_of_address(up):
    """IPv4 and IPv6 lead to the same answer."""
    sixth = ["[::1]"] if why_not(free_port(), "::1") is None else []
    for host in ["127.0.0.1", *sixth]:
        reply = requests.put(
            f"http://{host}:{up.door}/predictions/convnet", data=DIGITS["2"], timeout=PATIENCE
        )
        assert reply.text == "2"


def test_client_is_no_question_of_health(server, door_to):
    """Whoever marks an image as one is counted as all other clients are."""
    name = "classifier_health_checks_total"
    before = page_when(server, lambda page: page.total(name) == 1)  # of the start, by make
    opening, _ = door_to()
    for _ in range(20):
        assert put(opening, headers={HEALTH_CHECK: "1"}).text == "2"
    now = page_when(server, lambda page: page.requests >= before.requests + 20 and page.is_whole)
    assert now.requests >= before.requests + 20
    assert now.total(name) == before.total(name)


def test_page_is_there_and_knows_what_answers(up):
    """The page and its files, by GET alone; it is told the archive's name and labels."""
    reply = requests.get(f"{up.url}/", timeout=PATIENCE)
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html")
    assert (
        requests.get(f"{up.url}/page/page.js", timeout=PATIENCE).headers["Content-Type"] == "text/javascript"
    )
    told = requests.get(f"{up.url}/page/served.json", timeout=PATIENCE).json()
    assert told == {"models": [{"name": "convnet", "labels": list(DIGITS)}]}


def test_bad_image_is_told_what_to_send(up):
    """The handler's own sentence passes."""
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
    """TorchServe's own 404 has another form, and stays behind the door."""
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
    """What is neither asked of the model nor told of the server is not there, whatever lies behind."""
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
    """What is no GET is not there."""
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
    """Another method is told which ones there are."""
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
    """Where nothing can be sent, nothing is there but for GET."""
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
    "method": (405, f"GET {INFER}", "", "GET is no way to send an image; use PUT or POST"),
    "method-of-a-version": (405, f"PATCH {INFER_VERSION}", "", "PATCH is no way to send"),
    "length": (413, f"POST {INFER}", f"Content-Length: {BODY + 1}\r\n", "the body is too large; send at"),
    "web-form": (400, f"POST {INFER}", f"Content-Type: {WEB_FORM}\r\n", "a web form holds no image; send"),
    "large-form": (413, f"POST {INFER}", f"Content-Type: {LARGE_FORM}\r\nContent-Length: {BODY}\r\n",
        "the form is too large, or does not say how large it is; send"),
    "header": (400, f"POST {INFER}", f"X: {'a' * 5 * HEADER_LIMIT}\r\n", "the request is no HTTP, or its"),
    "body": (400, f"POST {INFER}", "Content-Length: 5\r\n\r\nhello", "cannot read 5 bytes starting b'hell'"),
    "json": (400, f"POST {INFER}", "Content-Length: 1\r\n\r\n{", "the body is no JSON ("),
    "json-of-a-version": (400, f"POST {INFER_VERSION}", "Content-Length: 1\r\n\r\n{", "the body is no JSON"),
    "two-slashes": (400, f"POST /{INFER}", "Content-Length: 5\r\n\r\nhello", "cannot read 5 bytes starting"),
    "by-another-way": (400, f"POST /x/..{INFER}", "Content-Length: 5\r\n\r\nhello", "cannot read 5 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_IN_V2)
def test_errors_of_v2_are_texts(up, name):
    """As that protocol has it, whoever refuses: nginx, what tells of health, or the handler."""
    code, asked, rest, sentence = REFUSED_IN_V2[name]
    reply = raw(up.door, f"{asked} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{rest}\r\n".encode())
    head, _, body = reply.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == code
    told = json.loads(body)
    assert set(told) == {"error"}
    assert told["error"].startswith(sentence)


@pytest.mark.parametrize("path", ["/predictions/convnet", "/v1/models/convnet:predict"])
def test_client_does_not_say_whose_address_it_asks(up, path):
    """The header by which the door tells the handler is the door's own."""
    for url, in_v2 in ((f"{up.url}{path}", False), (f"{up.url}{INFER}", True)):
        for protocol in ("v2", "other"):
            reply = requests.post(
                url, data=b'{"inputs": []}', headers={"X-Protocol": protocol}, timeout=PATIENCE
            )
            assert (reply.status_code, isinstance(reply.json()["error"], str)) == (400, in_v2)


def test_v2_is_told_to_come_again_in_a_text(door_to):
    """Too many requests, a door that closes, and nobody behind it."""
    opening, _ = door_to(rate=5)
    replies = [requests.post(f"{opening.address}{INFER}", data=b"{", timeout=PATIENCE) for _ in range(20)]
    often = next(reply for reply in replies if reply.status_code == 429)
    assert often.headers["Retry-After"] == "1"
    assert often.json()["error"].startswith("too many requests or connections from this address; send")
    opening.closed.touch()
    closed = requests.post(f"{opening.address}{INFER}", data=b"{", timeout=PATIENCE)
    # Nobody tells of health.
    unknown = requests.get(f"{opening.address}/v2/models/convnet/ready", timeout=PATIENCE)
    for reply in (closed, unknown):
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
        assert reply.json()["error"].startswith("no worker can answer now; try again in 2 seconds")


@pytest.mark.parametrize("path", ["/predictions/convnet", "/explanations/convnet", "/invocations"])
def test_query_of_a_client_is_no_header(up, path):
    """What the door hands on as the query is the query, whatever header of that name came."""
    headers = {"X-Query": "top_k=99&target=none"}
    bad = requests.put(f"{up.url}{path}?format=xml", data=DIGITS["2"], headers=headers, timeout=PATIENCE)
    if not path.startswith("/explanations"):
        assert requests.put(up.url + path, data=DIGITS["2"], headers=headers, timeout=PATIENCE).text == "2"
    assert said(bad).startswith("format is 'xml'")


def test_too_large_body_is_refused_before_it_is_sent(up):
    """The length alone is enough; the sentence says how much may come."""
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
    """What is no HTTP, or too much of it."""
    reply = raw(up.door, request_bytes)
    assert b" 400 " in reply.splitlines()[0] or b" 414 " in reply.splitlines()[0]
    assert b'"hint"' in reply


def test_two_lengths_are_refused(up):
    """What two servers could understand in two ways goes to neither."""
    body = DIGITS["2"]
    both = (
        f"PUT /predictions/convnet HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert b" 400 " in raw(up.door, both.encode() + body).splitlines()[0]


def test_too_many_requests_are_told_to_wait(door_to):
    """One address gets as many as the rules say, and then 429 with a time to come again."""
    opening, _ = door_to(rate=5)
    replies = [put(opening) for _ in range(20)]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert refused
    assert {reply.text for reply in replies if reply.ok} == {"2"}
    assert refused[0].headers["Retry-After"] == "1"
    assert refused[0].json()["error"]["hint"].startswith("send at most 5 a second")


def test_too_many_connections_are_told_to_wait(door_to):
    """Slow senders of one address take no more than their share; others are answered meanwhile."""
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
    """A body that does not come on for ten seconds ends its connection."""
    opening, _ = door_to()
    head = b"PUT /predictions/convnet HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nslow"
    raw(opening.port, head)  # it returns when the connection has ended


def test_server_that_is_away_is_503_and_when_to_come_again(tmp_path, scratch):
    """Nothing behind the door: a sentence, and not nginx's page."""
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
    """With a certificate and its key the same door answers https, from TLS 1.2 on."""
    folder = tmp_path / "it's a \"b; {c} $d"  # none of it is nginx's to read
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
    """The sentence says what to install."""
    monkeypatch.setattr("marctl.serve.front.nginx.PROGRAM", "no-such-nginx")
    with pytest.raises(UserError, match="apt-get install nginx-light"):
        Proxy(tmp_path).open(Opening(free_port(), NOWHERE, NOWHERE, tmp_path, BODY, 20, 100, 100))


def test_taken_port_is_named(up):
    """A second door on the same port says who holds it."""
    done = make("up", RUN=str(up.run.parent / "second"), PORT=str(free_port()), DOOR=str(up.door))
    assert f"port {up.door} is taken by process" in done.stderr
    assert up.status("/health/ready") == 200


def test_second_start_says_that_it_runs(up):
    """One door a folder."""
    done = make("up", RUN=str(up.run), PORT=str(free_port()), DOOR=str(free_port()))
    assert f"keeps a server up here already on {up.url}; first: make stop RUN={up.run}" in done.stderr
    assert done.returncode != 0


def test_ready_and_live_answer(up):
    """Both are 200 while all is well."""
    assert requests.get(f"{up.url}/health/ready", timeout=PATIENCE).json() == {"status": "ready"}
    assert requests.get(f"{up.url}/health/live", timeout=PATIENCE).json() == {"status": "live"}


def test_dead_workers_are_not_ready(own_up):
    """Workers that die whenever they load: TorchServe says Healthy and tries on, ready says the truth."""
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
    """A model scaled down to nothing answers nobody, whatever /ping says."""
    none = f"{own_up.management}/models/convnet?min_worker=0&max_worker=0&synchronous=true"
    assert requests.put(none, timeout=PATIENCE).ok
    wait_until(lambda: own_up.status("/health/ready") == 503)
    assert requests.get(f"{own_up.inference}/ping", timeout=PATIENCE).json() == {"status": "Healthy"}


def test_stop_loses_no_answer(own_up):
    """While clients send, make stop: what was taken in is answered, what is new is told to go elsewhere."""
    with Clients(own_up.door, DIGITS, leave_when_refused=True) as clients:
        wait_until(lambda: clients.right > 200)
        done = make("stop", RUN=str(own_up.run))
    assert done.stdout.strip() == "stopped"
    assert clients.wrong == []
    assert set(clients.failed) <= {"503, Retry-After 2"}
    assert why_not(own_up.door) is None


def taken_in_by(port: int) -> HTTPConnection:
    """Send an image, and return the connection when nginx has taken the request in."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.putrequest("PUT", "/predictions/convnet")
    connection.putheader("Content-Length", str(len(DIGITS["2"])))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(1000).startswith(b"HTTP/1.1 100 ")
    connection.send(DIGITS["2"])
    return connection


def test_stop_waits_for_what_was_taken_in(own_up):
    """An image that is with a worker when the stop comes is answered, and not told to go elsewhere."""
    for worker in own_up.workers:
        worker.suspend()
    with ThreadPoolExecutor() as pool:
        taken_in = taken_in_by(own_up.door)
        stop = pool.submit(make, "stop", RUN=str(own_up.run))
        time.sleep(2)  # the stop has come; if it comes later, the image is answered all the same
        for worker in own_up.workers:
            worker.resume()
        assert taken_in.getresponse().read() == b"2"
        taken_in.close()
        assert stop.result().stdout.strip() == "stopped"


def test_killed_worker_costs_no_answer(own_up):
    """A worker is killed every second, with requests in it: the other one answers them."""
    with Clients(own_up.door, DIGITS) as clients:
        for _ in range(8):
            wait_until(lambda: len(own_up.workers) == 2)
            wait_until(lambda: own_up.status("/health/ready") == 200)
            own_up.workers[0].kill()
            time.sleep(1)
    assert clients.right > 200
    assert (clients.wrong, dict(clients.failed)) == ([], {})


def test_kernel_ends_a_worker_before_java(up):
    """Where memory is short, it is a worker that goes: the other one answers what was in it."""
    java = int(Path(f"/proc/{up.java.pid}/oom_score_adj").read_text())
    workers = [int(Path(f"/proc/{worker.pid}/oom_score_adj").read_text()) for worker in up.workers]
    assert workers == [1000, 1000]
    assert java < 1000


@pytest.mark.root
def test_image_beyond_the_memory_costs_no_answer(up_in_a_small_container):
    """It is told that it is too large, a smaller one is answered, and no process ends."""
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
        "the image is too large (8000 x 8000 pixels): reading it may take 640 MB of memory, and "
    )
    assert pids(up) == before
    assert (clients.wrong, dict(clients.failed)) == ([], {})


def test_killed_java_is_started_again(own_up):
    """No wrong answer, no broken one: 503 and when to come again, until it is back."""
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
    """A worker that does not go on: what it took is asked for again, and it costs nothing but time."""
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
    """The archive with a TorchServe that gives a worker up after five seconds."""
    folder = tmp_path_factory.mktemp("impatient")
    config = folder / "model-config.yaml"
    contract = (ROOT / "model" / "model-config.yaml").read_text()
    assert "responseTimeout: 120" in contract
    config.write_text(contract.replace("responseTimeout: 120", "responseTimeout: 5"))
    built = make("archive", MAR=str(folder / "convnet.mar"), CONFIG=str(config))
    assert built.returncode == 0, built.stderr
    return folder / "convnet.mar"


def test_worker_that_is_given_up_costs_no_answer(tmp_path, impatient):
    """Stopped for longer than responseTimeout, a worker is replaced; what it took, the other one answers."""
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
    """Nothing can be written where the logs are: images are answered, also after a worker's death."""
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
    """At the latest when there is room again; until then clients are told to come again."""
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
    """What is served is a copy: with rubbish in the archive's place it still starts again."""
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
    """The door and the server go on without their keeper, and make stop ends them."""
    keeper = psutil.Process(json.loads((own_up.run / "keeper.json").read_text())["pid"])
    java = own_up.java
    keeper.kill()
    assert requests.put(own_up.predictions, data=DIGITS["2"], timeout=PATIENCE).text == "2"
    assert own_up.status("/health/ready") == 503
    assert make("stop", RUN=str(own_up.run)).stdout.strip() == "stopped"
    assert not lives(java)
    assert why_not(own_up.door) is None


def test_temporary_folder_of_any_name(tmp_path):
    """What stands in TMPDIR is no configuration; what nginx cannot take is refused in a sentence."""
    run = tmp_path / "run"
    # Not in the test's own folder, whose name is too long for a worker's socket.
    with tempfile.TemporaryDirectory(prefix="it's \"b;{c} ") as odd:
        Path(odd).chmod(THROUGH)  # where root starts nginx, its workers are nobody
        try:
            up, _ = started(run, TMPDIR=odd)
            assert requests.put(up.predictions, data=DIGITS["3"], timeout=PATIENCE).text == "3"
            assert requests.get(f"{up.url}/", timeout=PATIENCE).text.startswith("<!doctype html>")
        finally:
            make("stop", RUN=str(run))
    with tempfile.TemporaryDirectory(prefix="a$b") as odd:
        done = make("up", RUN=str(run), TMPDIR=odd, PORT=str(free_port()), DOOR=str(free_port()))
        assert done.stderr.startswith(f"error: nginx cannot take the path '{odd}/")


def test_missing_certificate_is_named(tmp_path):
    """By the name that was given."""
    ports = {"PORT": str(free_port()), "DOOR": str(free_port())}
    done = make("up", RUN=str(tmp_path / "run"), TLS_CERT="none.pem", TLS_KEY="none.pem", **ports)
    assert done.stderr.startswith("error: TLS needs a PEM file, and there is none at none.pem\n")


def test_tls_takes_both_files(tmp_path):
    """A certificate alone is no TLS."""
    ports = {"PORT": str(free_port()), "DOOR": str(free_port())}
    done = make("up", RUN=str(tmp_path / "run"), TLS_CERT="a.pem", **ports)
    assert "TLS takes a certificate and its key" in done.stderr
