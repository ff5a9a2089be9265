"""Known vulnerabilities of TorchServe and its libraries, tried on ours; SECURITY.md names these tests."""

import io
import json
import re
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
import requests

from marctl.serve.torchserve.settings import PORT_KEYS, body_limit
from tests.conftest import DIGITS, ROOT, free_port, make
from tests.support.waiting import PATIENCE, wait_until
from tests.system.test_front_door import raw, started
from tests.system.test_verify import Members, with_hidden_member, write

pytestmark = pytest.mark.torchserve

BODY = body_limit(ROOT / "config.properties")


class Lure:
    """A server that offers archives, and records who requests them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        told = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(workflow())

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


def workflow() -> bytes:
    """Return a workflow archive in TorchServe's format, with a model of its own."""
    file = io.BytesIO()
    manifest = {
        "createdOn": "1", "archiverVersion": "0.2.15",
        "workflow": {"workflowName": "evil", "specFile": "spec.yaml", "handler": "handler.py"},
    }  # fmt: skip
    with zipfile.ZipFile(file, "w") as war:
        war.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        war.writestr("spec.yaml", "models: {m: {url: evil.mar}}\ndag: {m: [m]}\n")
        war.writestr("handler.py", "")
    return file.getvalue()


@pytest.fixture
def lure():
    """A server on this machine that must not get any request."""
    server = Lure()
    yield server
    server.close()


@pytest.mark.parametrize("place", ["/workflows", "/models"])
@pytest.mark.parametrize("kind", ["http", "http-as-json", "file", "file-of-config"])
def test_no_address_is_ever_fetched(server, lure, tmp_path, place, kind):
    """A workflow or model from elsewhere is refused, and its address is never contacted."""
    (tmp_path / "evil.war").write_bytes(workflow())
    files = {"file": f"file://{tmp_path}/evil.war", "file-of-config": "file://none"}
    url = files.get(kind, f"{lure.url}/evil.war")
    asked = {"json": {"url": url}} if kind == "http-as-json" else {"params": {"url": url}}
    reply = requests.post(f"{server.management}{place}", timeout=PATIENCE, **asked)
    assert reply.status_code in {400, 404, 405}
    assert lure.asked == []
    assert requests.get(f"{server.management}/workflows", timeout=PATIENCE).json()["workflows"] == []
    [model] = requests.get(f"{server.management}/models", timeout=PATIENCE).json()["models"]
    assert model["modelName"] == "convnet"
    assert not (ROOT / "model_store" / "evil.war").exists()


def test_lure_can_be_fetched(lure):
    """A request to the lure gets an archive, so the tests above would notice a server that fetches."""
    assert zipfile.is_zipfile(io.BytesIO(requests.get(f"{lure.url}/evil.war", timeout=PATIENCE).content))
    assert lure.asked == ["/evil.war"]


def leading_out(name):
    def make_archive(archive, path):
        return write(path, Members(archive) | {name: b"x"})

    return make_archive


def with_link(archive, path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return write(path, Members(archive), [(link, "/etc/passwd")])


def compressed(archive, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as mar:
        for name, data in Members(archive).items():
            mar.writestr(name, data)
    return path


UNSAFE = {
    "up": (leading_out("../evil.py"), "'../evil.py' would be unpacked outside the archive's folder"),
    "up-later": (leading_out("a/../../evil.py"), "the member 'a/../../evil.py' would be unpacked outside"),
    "absolute": (leading_out("/tmp/evil.py"), "the member '/tmp/evil.py' would be unpacked outside"),  # noqa: S108
    "link": (with_link, "the member 'link' is a link; an archive may contain only files"),
    "hidden": (with_hidden_member, "it was repacked, or something is hidden in it"),
    "compressed": (compressed, "was repacked, or never sealed"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_archive_does_not_reach_torchserve(archive, tmp_path, name):
    """An archive that TorchServe would unpack elsewhere, or read differently, is refused."""
    build, sentence = UNSAFE[name]
    mar = build(archive, tmp_path / "convnet.mar")
    done = make("serve", MARS=str(mar), RUN=str(tmp_path / "run"), PORT=str(free_port()))
    assert done.returncode != 0
    assert sentence in done.stderr
    assert not (tmp_path / "run" / "logs").exists()


PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
FORM = "multipart/form-data; boundary=b"
URLENCODED = "application/x-www-form-urlencoded"
START = b'--b\r\nContent-Disposition: form-data; name="a'
MIXED = b"--%b\r\nContent-Disposition: form-data; name=a\r\nContent-Type: multipart/mixed; boundary=%b"
FORMS = {
    "many-fields": (URLENCODED, b"a&" * (BODY // 2)),
    "many-parts": (FORM, PART * (BODY // 8 // len(PART)) + b"--b--\r\n"),
    "no-end-of-a-part": (FORM, START + b'"\r\n\r\n' + b"x" * (BODY - 100)),
    "no-end-of-a-header": (FORM, START + b"x" * (BODY - 100)),
    "no-boundary": ("multipart/form-data", PART),
    "long-boundary": (f"multipart/form-data; boundary={'b' * 4000}", b"--" + b"b" * 4000 + b"\r\n"),
    "mixed-in-mixed": (FORM, MIXED % (b"b", b"c") + b"\r\n\r\n" + MIXED % (b"c", b"d")),
    "no-hex": (URLENCODED, b"a=%zz&%"),
    "unknown-encoding": (FORM, START + b'"\r\nContent-Transfer-Encoding: x\r\n\r\nx\r\n--b--\r\n'),
    "unknown-charset": (FORM, START + b'"\r\nContent-Type: a/b; charset=x\r\n\r\nx\r\n--b--\r\n'),
}
# More than a form may have; TorchServe itself would parse them.
LARGE = {"no-end-of-a-part", "no-end-of-a-header"}
SMUGGLED = "/smuggled"
INSIDE = f"GET {SMUGGLED} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
IMAGE = DIGITS["2"]
SIZE = b"%x" % len(IMAGE)


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """One reverse proxy for all tests here."""
    run = tmp_path_factory.mktemp("up")
    yield started(run)[0]
    make("stop", RUN=str(run))


@pytest.mark.nginx
@pytest.mark.parametrize("name", FORMS)
def test_forms_cost_nothing(up, name):
    """A form that could exhaust its decoder is refused; Java and both workers survive and answer."""
    kind, body = FORMS[name]
    before = up.java, [worker.pid for worker in up.workers]
    for _ in range(3):
        reply = requests.post(up.predictions, data=body, headers={"Content-Type": kind}, timeout=PATIENCE)
        assert reply.status_code == (413 if name in LARGE else 400)
    assert (up.java, [worker.pid for worker in up.workers]) == before
    assert requests.put(up.predictions, data=IMAGE, timeout=PATIENCE).text == "2"


def framed(*headers: bytes, body: bytes, version: bytes = b"1.1") -> bytes:
    """Return a prediction request with custom headers and body."""
    lines = [b"PUT /predictions/convnet HTTP/" + version, b"Host: a", b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
CHUNKS = SIZE + b"\r\n" + IMAGE + b"\r\n" + END
LENGTH = b"Content-Length: %d" % len(IMAGE)
AMBIGUOUS = {
    "length-and-chunked": framed(LENGTH, CHUNKED, body=END + INSIDE),
    "chunked-and-length": framed(CHUNKED, b"Content-Length: 5", body=CHUNKS + INSIDE),
    "two-lengths": framed(LENGTH, b"Content-Length: 0", body=IMAGE + INSIDE),
    "list-of-lengths": framed(b"Content-Length: %d, 0" % len(IMAGE), body=IMAGE + INSIDE),
    "signed-length": framed(b"Content-Length: +%d" % len(IMAGE), body=IMAGE + INSIDE),
    "chunked-twice": framed(CHUNKED, CHUNKED, body=CHUNKS + INSIDE),
    "chunked-and-identity": framed(CHUNKED, b"Transfer-Encoding: identity", body=CHUNKS + INSIDE),
    "unknown-encoding": framed(b"Transfer-Encoding: xchunked", LENGTH, body=IMAGE + INSIDE),
    "space-before-colon": framed(b"Transfer-Encoding : chunked", LENGTH, body=IMAGE + END + INSIDE),
    "tab-in-encoding": framed(b"Transfer-Encoding:\x0bchunked", LENGTH, body=IMAGE + END + INSIDE),
    "folded-header": framed(b"Transfer-Encoding:\r\n chunked", LENGTH, body=IMAGE + END + INSIDE),
    "chunked-in-http-1.0": framed(CHUNKED, body=CHUNKS + INSIDE, version=b"1.0"),
    # A line feed in the extension after a chunk's size: Netty 4.1.53 takes it for the end of the line.
    "line-feed-in-extension": framed(CHUNKED, body=SIZE + b";\nx\r\n" + IMAGE + b"\r\n" + END + INSIDE),
    "line-feed-ends-a-size": framed(CHUNKED, body=SIZE + b"\n" + IMAGE + b"\n0\n\n" + INSIDE),
    "size-with-a-prefix": framed(CHUNKED, body=b"0x" + CHUNKS + INSIDE),
    "size-beyond-all": framed(CHUNKED, body=b"f" * 17 + b"\r\n" + IMAGE + INSIDE),
    "trailer": framed(CHUNKED, body=CHUNKS[:-2] + b"Content-Length: 0\r\n\r\n" + INSIDE),
}


@pytest.mark.nginx
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_request_in_a_request_reaches_nobody(up, name):
    """An ambiguous request is refused, or passed on only as nginx parsed it."""
    head, _, body = raw(up.door, AMBIGUOUS[name]).partition(b"\r\n\r\n")
    code = int(head.split()[1])
    assert (code, body) == (200, b"2") or code in {400, 411, 501}
    assert b"HTTP/1.1 " not in body
    for digit, image in DIGITS.items():
        assert requests.put(up.predictions, data=image, timeout=PATIENCE).text == digit
    assert SMUGGLED not in refused_by_torchserve(up)


@pytest.mark.nginx
def test_request_in_a_request_would_be_seen(up):
    """TorchServe logs unknown requests, so the tests above would notice a smuggled one."""
    requests.get(f"{up.inference}/control", timeout=PATIENCE)
    wait_until(lambda: "/control" in refused_by_torchserve(up))


def refused_by_torchserve(up) -> str:
    """Return TorchServe's log of refused requests."""
    return (up.run / "logs" / "access_log.log").read_text()


@pytest.mark.nginx
@pytest.mark.parametrize(
    "line",
    [
        "PUT {management}/models/convnet?min_worker=0&max_worker=0&synchronous=true HTTP/1.1\r\nHost: a",
        "PUT /models/convnet?min_worker=0&max_worker=0&synchronous=true HTTP/1.1\r\nHost: {address}",
        "CONNECT {address} HTTP/1.1\r\nHost: {address}",
        "PUT /predictions/convnet@{address}/models/convnet?min_worker=0 HTTP/1.1\r\nHost: a",
    ],
    ids=["absolute", "by-host", "connect", "as-a-user"],
)
def test_management_is_not_behind_the_door(up, line):
    """However it is addressed, the management API is not reached, and the workers stay."""
    address = up.management.removeprefix("http://")
    asked = line.format(management=up.management, address=address)
    reply = raw(up.door, f"{asked}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    assert int(reply.split()[1]) in {400, 404, 405}
    assert len(up.workers) == 2
    [described] = requests.get(f"{up.management}/models/convnet", timeout=PATIENCE).json()
    assert described["minWorkers"] == 2


@pytest.mark.nginx
def test_torchserve_behind_the_door_listens_to_this_machine_alone(up):
    """The proxy listens on all addresses (IPv6 too if there is any), TorchServe only on loopback."""
    ports = range(up.port, up.port + len(PORT_KEYS))
    listening = {
        (c.laddr.port, c.laddr.ip.removeprefix("::ffff:"))
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port in (*ports, up.door)
    }
    anyone = {"0.0.0.0", "::"}  # noqa: S104 compared, not bound
    assert {port for port, address in listening if address in anyone} == {up.door}
    assert {(port, address) for port, address in listening if port != up.door} == {
        (port, "127.0.0.1") for port in ports
    }


SECURITY = (ROOT / "SECURITY.md").read_text()


@pytest.mark.parametrize(("file", "name"), re.findall(r"`(test_\w+\.py)::(test_\w+)`", SECURITY))
def test_every_test_that_is_named_is_there(file, name):
    """Every test that SECURITY.md names exists."""
    [found] = (ROOT / "tests").rglob(file)
    assert f"\ndef {name}(" in found.read_text()
