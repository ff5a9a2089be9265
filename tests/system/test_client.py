"""The Python client, against the real servers and one that fails on demand."""

import asyncio
import contextlib
import csv
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from tenacity import RetryCallState, Retrying

import marctl.client
from bench.servers.limits import small_disk
from marctl.client import (
    AsyncClient,
    BadImage,
    BadSetting,
    Client,
    ClientError,
    NoPrediction,
    Prediction,
    Refused,
    Retries,
    TooSlow,
    Unavailable,
    Unreachable,
)
from tests.conftest import DIGITS, IMAGES, WITHOUT_RIGHTS, free_port, make
from tests.support.waiting import PATIENCE

GOOD = DIGITS["3"]
AT_ONCE = Retries(tries=4, first=0.01, longest=0.02)
MODEL = '{"name": "convnet", "version": "1.0", "sha256": "abc"}'
ANSWER = f'{{"label": "3", "index": 3, "probability": 0.99, "model": {MODEL}}}'


def reply(status: str, body: str = "", *headers: str) -> bytes:
    """Return an HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
    return "\r\n".join(lines).encode()


CLOSED = b""  # the connection is closed without a response
OK = reply("200 OK", ANSWER)


@contextmanager
def faulty(*replies: bytes, silence: float = 0.0, tls: ssl.SSLContext | None = None):
    """A small server that sends these responses in turn, and then the last one forever.

    TorchServe and nginx cannot be made to fail in exact ways and numbers. Yields its URL and its number of
    requests.
    """
    count = [0]
    plain = socket.create_server(("127.0.0.1", 0))
    # Each handshake takes place in its connection's own thread.
    with tls.wrap_socket(plain, True, do_handshake_on_connect=False) if tls else plain as listening:

        def answer(connection: socket.socket, said: bytes):
            with connection, contextlib.suppress(OSError):  # the client may have disconnected
                read_request(connection)
                time.sleep(silence)
                connection.sendall(said)

        def serve():
            for said in itertools.chain(replies, itertools.repeat(replies[-1])):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                count[0] += 1
                threading.Thread(target=answer, args=(connection, said), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{listening.getsockname()[1]}", count
        listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def failing(*replies: bytes, silence: float = 0.0, timeout: float = 30.0):
    """A client of such a server. Yields the client and its number of requests."""
    with (
        faulty(*replies, silence=silence) as (url, count),
        Client(url, timeout=timeout, retries=AT_ONCE) as client,
    ):
        yield client, count


def ask(url: str, how: str) -> Prediction:
    async def by_asyncio() -> Prediction:
        async with AsyncClient(url, retries=AT_ONCE) as client:
            return await client.predict(GOOD)

    if how == "async":
        return asyncio.run(by_asyncio())
    with Client(url, retries=AT_ONCE) as client:
        return client.predict(GOOD)


def read_request(connection: socket.socket) -> None:
    """Read a whole request: a client answered earlier may see a closed connection instead."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    [length] = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line]
    while len(body) < length:
        body += received(connection)


def received(connection: socket.socket) -> bytes:
    """Return what has arrived. Raises ConnectionError at the end, where recv returns nothing forever."""
    data = connection.recv(2**16)
    if not data:
        raise ConnectionError
    return data


@pytest.fixture(scope="module", params=["torchserve", "flask"])
def url(request, server, flask_server):
    """The URL of each of the two servers."""
    return {"torchserve": server.inference, "flask": flask_server.url}[request.param]


@pytest.fixture
def client(url):
    """A client of each server."""
    with Client(url) as opened:
        yield opened


def test_image_gets_its_prediction(client):
    """It has label, index, probability and archive, and nothing that was not requested."""
    answer = client.predict(DIGITS["2"])
    assert (answer.label, answer.index) == ("2", 2)
    assert 0.9 < answer.probability <= 1
    assert (answer.model.name, answer.model.version) == ("convnet", "1.0")
    assert (answer.top_k, answer.input) == ((), None)


def test_more_is_told_to_who_asks(client):
    """On request it also has the most likely labels in order, and the model's input."""
    answer = client.predict(IMAGES / "5.png", top_k=3, show_input=True)
    assert answer.top_k[0].label == "5"
    assert len(answer.top_k) == 3
    chances = [one.probability for one in answer.top_k]
    assert chances == sorted(chances, reverse=True)
    assert [len(answer.input), *{len(row) for row in answer.input}] == [28, 28]


def test_pixels_that_decided_are_told(flask_server):
    """There is one positive or negative number per pixel."""
    with Client(flask_server.url) as client:
        told = client.explain(GOOD)
    assert told.label == "3"
    values = [value for row in told.attributions for value in row]
    assert len(values) == 28 * 28
    assert min(values) < 0 < max(values)


def test_refused_image_is_told_once(client):
    """The error has the server's message, hint and status, and is not retried."""
    with pytest.raises(Refused, match="answers 400: cannot read 5 bytes starting") as refusal:
        client.predict(b"hello")
    assert refusal.value.status == 400
    assert "PNG" in f"{refusal.value.message} {refusal.value.hint}"


def test_unknown_model_is_refused(url):
    """The message is TorchServe's or ours."""
    sentence = "answers 404: (Model not found: other|there is no such model)"
    with Client(url, model="other") as client, pytest.raises(Refused, match=sentence):
        client.predict(GOOD)


def test_missing_file_is_named(client, tmp_path):
    """Nothing is sent."""
    with pytest.raises(BadImage, match=f"cannot read {tmp_path}/none.png: No such file"):
        client.predict(tmp_path / "none.png")


def many(tmp_path) -> tuple[list, list]:
    """Return good and bad images in turn, and the outcome expected for each."""
    files = [str(IMAGES / f"{digit}.png") for digit in DIGITS]
    images = [*DIGITS.values(), b"hello", tmp_path / "none.png", *files] * 3
    return images, [*DIGITS, "Refused", "BadImage", *DIGITS] * 3


def name_of(outcome: Prediction | ClientError) -> str:
    return outcome.label if isinstance(outcome, Prediction) else type(outcome).__name__


def test_many_are_answered_in_order(client, tmp_path):
    """Failures do not affect the other images; each error is in its image's place."""
    images, expected = many(tmp_path)
    assert [name_of(outcome) for outcome in client.predict_many(images)] == expected


def test_many_are_answered_by_asyncio(url, tmp_path):
    """The same outcomes come in the same order."""
    images, expected = many(tmp_path)

    async def ask():
        async with AsyncClient(url) as client:
            return [name_of(outcome) async for outcome in client.predict_many(images)]

    assert asyncio.run(ask()) == expected


def test_asyncio_is_answered_and_refused(flask_server):
    """AsyncClient also predicts one image, explains it and raises errors."""

    async def ask():
        async with AsyncClient(flask_server.url) as client:
            with pytest.raises(Refused, match="cannot read 5 bytes"):
                await client.predict(b"hello")
            return (await client.predict(GOOD)).label, (await client.explain(GOOD)).label

    assert asyncio.run(ask()) == ("3", "3")


def test_images_under_way_are_bounded(flask_server):
    """Of endless images, only a few are read ahead of the consumer."""
    read = itertools.count()

    def endless():
        for _ in read:
            yield GOOD

    with Client(flask_server.url) as client:
        outcomes = client.predict_many(endless(), concurrency=2)
        assert [name_of(next(outcomes)) for _ in range(3)] == ["3"] * 3
        outcomes.close()
    assert next(read) < 20


@pytest.mark.parametrize(
    "fault",
    [
        CLOSED,
        reply("429 Too Many Requests"),
        reply("502 Bad Gateway"),
        reply("503 Service Unavailable"),
        reply("504 Gateway Timeout"),
        reply("507 Insufficient Storage"),
    ],
    ids=["closed", "429", "502", "503", "504", "507"],
)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_passing_fault_is_asked_again(fault, how):
    """After two failures comes the answer; the caller does not notice."""
    with faulty(fault, fault, OK) as (url, count):
        assert ask(url, how).label == "3"
    assert count[0] == 3


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "409 Conflict", "413 Too Large"])
def test_fault_of_the_caller_is_not_asked_again(status):
    """The same request would be refused again."""
    body = '{"error": {"code": 1, "message": "it is wrong", "hint": "send another"}}'
    sentence = f"answers {status[:3]}: it is wrong; send another$"
    wrong = failing(reply(status, body), OK)
    with wrong as (client, count), pytest.raises(Refused, match=sentence) as refusal:
        client.predict(GOOD)
    assert (refusal.value.message, refusal.value.hint) == ("it is wrong", "send another")
    assert count[0] == 1


def test_lasting_fault_is_told_with_the_effort():
    """The error has the last response's message and the number of attempts."""
    away = reply("503 Away", '{"code": 503, "type": "X", "message": "no workers"}')
    sentence = r"/predictions/convnet answers 503: no workers, after 4 attempts in \d"
    with failing(away) as (client, count), pytest.raises(Unavailable, match=sentence):
        client.predict(GOOD)
    assert count[0] == 4


def test_501_is_not_asked_again():
    """What a server does not offer now, it will not offer later either."""
    missing = reply("501 Not Implemented", '{"error": {"message": "not here", "hint": ""}}')
    with failing(missing) as (client, count), pytest.raises(Unavailable, match=r"501: not here$"):
        client.explain(GOOD)
    assert count[0] == 1


@pytest.mark.parametrize(
    ("url", "token", "sentence"),
    [
        ("http://[::1", None, r"'http://\[::1' is not a valid address \(.*\); give one such as http://127"),
        ("127.0.0.1:8080", None, "'127.0.0.1:8080' is not the address of a server; give one such as http://"),
        ("http://", None, "'http://' is not the address of a server"),
        ("http://127.0.0.1:8080", "é", "the token has characters that a header cannot have"),
        ("http://127.0.0.1:8080", "a\nb", "the token has characters that a header cannot have"),
        (
            "http://127.0.0.1:80800",
            None,
            r"'http://.*' is not a valid address \(the port 80800 is above 65535\); give",
        ),
        ("http://a..b", None, r"'http://a..b' is not a valid address \(.*empty.*\); give one such as http:"),
    ],
)
def test_bad_setting_is_said_at_once(url, token, sentence):
    """The error comes before anything is sent, and says what to give instead."""
    with pytest.raises(BadSetting, match=f"^{sentence}"):
        Client(url, token=token)


def test_name_of_no_file_is_a_bad_image(client):
    """So is a name that no system accepts; of many images, the others are answered."""
    outcomes = list(client.predict_many(["a\0b.png", GOOD]))
    assert [name_of(outcome) for outcome in outcomes] == ["BadImage", "3"]


def test_answer_that_cannot_be_unpacked_is_no_prediction():
    """The response declares gzip but is not compressed."""
    damaged = reply("200 OK", "no gzip", "Content-Encoding: gzip")
    with failing(damaged) as (client, _), pytest.raises(NoPrediction, match="cannot be decoded"):
        client.predict(GOOD)


def test_nothing_under_way_at_once_is_refused(url):
    """A concurrency of zero would wait forever."""
    with Client(url) as client, pytest.raises(ValueError, match="concurrency is 0; it must be at least 1"):
        list(client.predict_many([GOOD], concurrency=0))

    async def predicted_by_none():
        async with AsyncClient(url) as client:
            return [one async for one in client.predict_many([GOOD], concurrency=0)]

    with pytest.raises(ValueError, match="concurrency is 0; it must be at least 1"):
        asyncio.run(predicted_by_none())


def test_absent_server_is_unreachable():
    """The error has the number of attempts, and how to start a server."""
    url = f"http://127.0.0.1:{free_port()}"
    sentence = r"nothing answers on http.* after 4 attempts .* make serve"
    with Client(url, retries=AT_ONCE) as client, pytest.raises(Unreachable, match=sentence):
        client.predict(GOOD)


def test_server_that_starts_meanwhile_answers():
    """Connections are refused until a server listens: a restart loses no answer."""
    refused = threading.Event()

    class Seen(Retries):
        def wait(self, state):
            refused.set()
            return super().wait(state)

    port = free_port()
    with (
        ThreadPoolExecutor() as pool,
        Client(f"http://127.0.0.1:{port}", retries=Seen(tries=9999, first=0.01, longest=0.02)) as client,
    ):
        asked = pool.submit(client.predict, GOOD)
        refused.wait(PATIENCE)
        with socket.create_server(("127.0.0.1", port)) as listening:
            listening.settimeout(PATIENCE)
            connection, _ = listening.accept()
            with connection:
                read_request(connection)
                connection.sendall(OK)
        assert asked.result().label == "3"


def test_slow_server_is_not_asked_twice():
    """After a timeout the client does not send the same work again."""
    slow = failing(OK, silence=0.5, timeout=0.1)
    with slow as (client, count), pytest.raises(TooSlow, match="took longer than the timeout"):
        client.predict(GOOD)
    assert count[0] == 1


@pytest.mark.parametrize("body", ["3", "[]", "{}", '{"label": "3"}', "<html>"])
def test_other_server_is_recognised(body):
    """A response that is not a prediction is shown, whatever its status."""
    other = failing(reply("200 OK", body))
    with other as (client, _), pytest.raises(NoPrediction, match="is it this project's server"):
        client.predict(GOOD)


def pause(retries: Retries, tried: int, status: int, **headers: str) -> float:
    """Return the wait after this attempt, for a response with this status and these headers."""
    state = RetryCallState(retries.by(Retrying), None, (), {})
    state.attempt_number = tried
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    state.set_result(httpx.Response(status, headers=named))
    return retries.wait(state)


def test_pause_is_the_servers_wish_and_has_a_cap():
    """Retry-After, seconds or a date, is capped; without it the limit doubles with each attempt."""
    retries = Retries(tries=9, first=1.0, longest=30.0)
    assert 5 <= pause(retries, 1, 503, Retry_After="5") <= 6
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True)
    assert 8 < pause(retries, 1, 429, Retry_After=date) <= 11
    assert pause(retries, 1, 429, Retry_After="86400") == 30
    for strange in ("soon", "-5", "", "Wed, 99 Nov", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"):
        assert 0 <= pause(retries, 1, 503, Retry_After=strange) <= 1
    for tried, longest in enumerate([1, 2, 4, 8, 16, 30, 30, 30], start=1):
        pauses = [pause(retries, tried, 503) for _ in range(100)]
        assert longest / 2 < max(pauses) <= longest


def test_pause_has_chance():
    """Clients refused at the same time do not all return at the same time."""
    assert len({pause(Retries(), 1, 503, Retry_After="1") for _ in range(10)}) == 10


def test_no_try_begins_after_the_deadline():
    """The deadline holds whatever Retry-After says and however many tries are left."""
    retries = Retries(tries=99, first=0.01, longest=100, deadline=0.5)
    away = reply("503 Away", "", "Retry-After: 60")
    with faulty(away) as (url, count), Client(url, retries=retries) as client, pytest.raises(Unavailable):
        client.predict(GOOD)
    assert count[0] == 1


def test_client_is_whole_by_itself(tmp_path):
    """A renamed copy of its folder works without this project or numpy."""
    shutil.copytree(Path(marctl.client.__file__).parent, tmp_path / "asking")
    program = (
        "import sys\n"
        "for name in ('marctl', 'classifier', 'numpy', 'torch', 'PIL', 'tqdm', 'requests'):\n"
        "    sys.modules[name] = None\n"  # makes its import fail
        "import asking\n"
        "with asking.Client(sys.argv[1]) as client: print(client.predict(b'').label)\n"
    )
    with faulty(OK) as (url, _):
        command = [sys.executable, "-c", program, url]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.fixture
def no_proxies(monkeypatch):
    """An environment without variables for proxies and certificates."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("SSL"):
            monkeypatch.delenv(name)
    return monkeypatch


def error_of(url: str, kind: type[ClientError], how: str) -> str:
    """Return the sentence with which a client, synchronous or asyncio, fails."""
    with pytest.raises(kind) as raised:
        ask(url, how)
    assert type(raised.value) is kind
    assert "secret" not in str(raised.value)
    return str(raised.value)


SOCKS, SCHEME = "'socksio' package is not installed", "Unknown scheme for proxy URL"
NO_ADDRESS = "ALL_PROXY is not the address of a proxy; correct it"


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("socks5://me:secret@127.0.0.1:9", f"the proxy socks5://127.0.0.1:9, set by ALL_PROXY, .*{SOCKS}"),
        ("socks4://me:secret@127.0.0.1:9", f"the proxy socks4://127.0.0.1:9, set by ALL_PROXY, .*{SCHEME}"),
        ("http://me:secret@127.0.0.1:9secret", NO_ADDRESS),
        ("http://me:secret@127.0.0.1:99999", NO_ADDRESS),
        ("http://", NO_ADDRESS),
        ("http://a..b", NO_ADDRESS),
    ],
    ids=["socks5", "socks4", "no-port", "large-port", "no-host", "no-name"],
)
def test_proxy_that_cannot_be_used_is_a_bad_setting(proxy, words, how, no_proxies):
    """The error has the variable, the reason and the remedy, but never the password."""
    no_proxies.setitem(sys.modules, "socksio", None)
    no_proxies.setenv("ALL_PROXY", proxy)
    remedy = "; to go without a proxy, unset ALL_PROXY or add 127.0.0.1 to NO_PROXY$"
    assert re.match(words + ".*" + remedy, error_of("http://127.0.0.1:1", BadSetting, how))


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_absent_proxy_is_named(variable, how, no_proxies):
    """The error blames the proxy and names its variable, without its password."""
    port = free_port()
    no_proxies.setenv(variable, f"me:secret@127.0.0.1:{port}")
    sentence = (
        rf"nothing answers on http://127.0.0.1:1/predictions/convnet \(through the proxy http://127.0.0.1:{port}"
        rf", set by {variable}\), after 4 attempts .*; is the proxy running\? to go .*, unset {variable} or "
    )
    assert re.match(sentence, error_of("http://127.0.0.1:1", Unreachable, how))


def test_answer_of_a_proxy_is_told_as_such(no_proxies):
    """The response may be the proxy's own, so the error names the proxy that was used."""
    with faulty(reply("407 Proxy Authentication Required", "who are you?")) as (proxy, count):
        no_proxies.setenv("HTTP_PROXY", proxy)
        said = error_of("http://127.0.0.1:1", Refused, "sync")
        assert f"(through the proxy {proxy}, set by HTTP_PROXY) answers 407: who are you?" in said
        no_proxies.setenv("NO_PROXY", "127.0.0.1")
        assert "proxy" not in error_of("http://127.0.0.1:1", Unreachable, "sync")
    assert count[0] == 1


@pytest.mark.parametrize("no_proxy", ["[::1]", "::1", "[::1]:{port}", "other,[::1] ", "*"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_address_of_version_6_needs_no_proxy(no_proxy, how, no_proxies):
    """NO_PROXY accepts IPv6 addresses with and without brackets."""
    port = free_port()
    no_proxies.setenv("no_proxy", no_proxy.format(port=port))
    no_proxies.setenv("all_proxy", "http://127.0.0.1:9")
    assert "proxy" not in error_of(f"http://[::1]:{port}", Unreachable, how)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"])
def test_missing_certificates_are_a_bad_setting(variable, how, no_proxies, tmp_path):
    """The error names the variable; for a URL without TLS it is ignored."""
    no_proxies.setenv(variable, f"{tmp_path}/none/file")
    assert error_of("https://127.0.0.1:1", BadSetting, how).startswith(
        f"{variable}={tmp_path}/none/file cannot "
    )
    error_of("http://127.0.0.1:1", Unreachable, how)


def test_file_without_certificates_is_a_bad_setting(no_proxies, tmp_path):
    """The error says what is in the file, and what to name instead."""
    (tmp_path / "a.pem").write_text("no certificate")
    for what in ("a.pem", ""):
        no_proxies.setenv("SSL_CERT_FILE", str(tmp_path / what))
        assert "give certificates in PEM format, or unset it" in error_of(
            "https://127.0.0.1", BadSetting, "sync"
        )


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A server's context with a self-signed certificate, and the file that makes a client trust it."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
         "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("whose", ["server", "proxy"])
def test_untrusted_certificate_is_said_at_once(whose, how, tls, no_proxies):
    """It is not retried or reported as no answer; SSL_CERT_FILE makes it trusted."""
    context, certificate = tls
    with faulty(OK, tls=context) as (url, count):
        asked = url
        if whose == "proxy":
            no_proxies.setenv("HTTP_PROXY", url)
            asked = "http://127.0.0.1:1"
        said = error_of(asked, Unreachable, how)
        assert re.search(
            r" has a certificate that is not trusted here \(.*\); name its authority's .* in SSL_", said
        )
        assert (whose == "proxy") == ("(through the proxy https://127.0.0.1:" in said)
        assert count[0] == 1
        no_proxies.setenv("SSL_CERT_FILE", str(certificate))
        assert ask(asked, how).label == "3"


@pytest.mark.parametrize("variable", ["ALL_PROXY", "SSL_CERT_FILE"])
def test_command_says_what_is_wrong_in_the_environment(variable, no_proxies):
    """It is one line."""
    no_proxies.setenv(variable, "/none")
    done = make("predict", URL="https://127.0.0.1:1", IMAGE="tests/images/2.png")
    assert done.returncode != 0
    assert done.stderr.startswith(f"error: {variable}")
    assert "Traceback" not in done.stderr


def test_command_prints_the_label(url):
    """The output is the same as that of make predict without a server."""
    done = make("predict", URL=url, IMAGE="tests/images/2.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


@pytest.mark.parametrize("reply_of", ["label", "error", "text", "header"])
def test_command_prints_no_strangers_commands(tmp_path, reply_of):
    """Whatever a server responds, it cannot control the terminal."""
    evil = "\x1b]0;mine\x07\x1b[2J\u202e\u200b\ud83d"
    said = json.dumps(evil)
    answers = {
        "label": OK.replace(b'"3"', said.encode(), 1).replace(b"Content-Length", b"X-Old"),
        "error": reply("400 Bad", f'{{"error": {{"message": {said}, "hint": {said}}}}}'),
        "text": reply("400 Bad", "\x1b[2Jno"),
        "header": reply("302 Found \x1b[2J", ""),
    }
    (tmp_path / "a.png").write_bytes(GOOD)
    with faulty(answers[reply_of]) as (url, _):
        one = make("predict", URL=url, IMAGE=str(tmp_path / "a.png"))
        many = make("predict", URL=url, IMAGES=str(tmp_path / "*.png"), OUT=str(tmp_path / "t.csv"))
    for done in (one, many):
        assert "Traceback" not in done.stderr
        assert all(character.isprintable() or character in "\n\r" for character in done.stdout + done.stderr)
    assert reply_of == "header" or "\\x1b[2J" in one.stdout + one.stderr
    assert reply_of != "label" or one.returncode == many.returncode == 0


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_image_that_is_no_file_is_not_waited_for(tmp_path, kind):
    """A pipe is refused rather than read forever, with or without a server."""
    image = tmp_path / "a.png"
    os.mkfifo(image) if kind == "pipe" else image.mkdir()
    for where in ({}, {"URL": "http://127.0.0.1:1"}):
        done = make("predict", IMAGE=str(image), **where)
        assert f"error: {image} is not a file; give an image file\n" in done.stderr
        assert done.returncode != 0


def test_command_says_what_is_wrong(flask_server, tmp_path):
    """A file that is not an image and a server that is not ours get one line each."""
    text = tmp_path / "a b.png"
    text.write_bytes(b"hello")
    refused = make("predict", URL=flask_server.url, IMAGE=str(text))
    said = f"error: {flask_server.url}/predictions/convnet answers 400: cannot read 5 bytes"
    assert refused.stderr.startswith(said)
    assert refused.returncode != 0


def test_command_answers_a_folder(flask_server, tmp_path):
    """Each image gets a row with the archive's digest; a second run sends only the broken ones."""
    folder, out = tmp_path / "images", tmp_path / "answers.csv"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"hello")
    for digit, body in DIGITS.items():
        (folder / f"{digit}.png").write_bytes(body)
    where = {"URL": flask_server.url, "IMAGES": str(folder), "OUT": str(out)}
    first, second = (make("predict", **where) for _ in range(2))
    assert first.stdout.startswith("10 answered, 1 broken, 0 done before\n")
    assert second.stdout.startswith("0 answered, 1 broken, 10 done before\n")
    assert first.returncode == second.returncode != 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [*DIGITS, ""]
    assert rows[-1]["error"].startswith("cannot read 5 bytes")
    with Client(flask_server.url) as client:
        assert {row["archive"] for row in rows} == {client.predict(GOOD).model.sha256[:12]}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_command_on_a_full_disk_says_so(tmp_path):
    """It is one sentence, and the same command resumes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(500):
        (folder / f"{'long' * 50}{index}.png").write_bytes(b"image")
    with faulty(OK) as (url, _), small_disk(tmp_path / "disk", "size=64k") as disk:
        where = {"URL": url, "IMAGES": str(folder), "OUT": str(disk / "t.csv")}
        done = make("predict", **where)
        said = done.stderr.splitlines()[-2]
        assert said == (
            f"error: OUT={disk}/t.csv cannot be written: No space left on device; "
            "correct that and run the same command again: it continues where it stopped"
        )
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        again = make("predict", **where)
        assert again.returncode == 0
        assert not again.stdout.startswith("500 answered")
        with (disk / "t.csv").open(newline="") as file:
            assert len({row["image"] for row in csv.DictReader(file)}) == 500


def test_command_names_folders_that_cannot_be_searched(tmp_path):
    """As without a server, the other images are answered and the exit status is not 0."""
    closed = tmp_path / "images" / "closed"
    closed.mkdir(parents=True)
    (closed.parent / "1.png").write_bytes(b"image")
    closed.chmod(0)
    with faulty(OK) as (url, _):
        where = {"URL": url, "IMAGES": str(closed.parent), "OUT": str(tmp_path / "t.csv")}
        done = make("predict", within=WITHOUT_RIGHTS, **where)
    closed.chmod(0o700)
    assert done.stdout.startswith(
        "1 answered, 0 broken, 0 done before; folders that could not be searched: 1\n"
    )
    assert f"  {closed}: the folder cannot be searched: Permission denied\n" in done.stderr
    assert done.returncode != 0


def test_command_goes_past_an_unlucky_first_image(tmp_path):
    """One image that the server cannot answer ends no run; a server that answers none does."""
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(GOOD)
    broken = reply("500 Fault", '{"error": {"message": "a fault", "hint": "try again"}}')
    with faulty(broken, OK) as (url, _):
        done = make("predict", URL=url, IMAGES=str(tmp_path), OUT=str(tmp_path / "answers.csv"))
    assert done.stdout.startswith("4 answered, 0 broken")
    with faulty(broken) as (url, count):
        done = make("predict", URL=url, IMAGES=str(tmp_path), OUT=str(tmp_path / "others.csv"))
    assert f"error: {url}/predictions/convnet answers 500: a fault; try again" in done.stderr
    assert count[0] == 3
