"""The archive in a real TorchServe, over real HTTP."""

import random
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests

from bench.load.images import VARIANTS, opened
from tests.conftest import DIGITS, IMAGES, Served
from tests.support.images import bad_images
from tests.support.waiting import PATIENCE
from tests.support.wire import said

GOOD = DIGITS["3"]
CLIENTS, REQUESTS = 32, 1600


def put(server: Served, body: bytes, **options) -> requests.Response:
    return requests.put(server.predictions, data=body, timeout=PATIENCE, **options)


def test_every_digit_is_read(server):
    """The ten real digits, sent as by `curl -T`, get the bare digit as text."""
    for digit, body in DIGITS.items():
        reply = put(server, body)
        assert (reply.status_code, reply.text) == (200, digit)
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_encoding_is_read(server, variant):
    """A digit is read whatever its colours, size and format."""
    for digit in ("2", "5", "8"):
        assert put(server, VARIANTS[variant](opened(DIGITS[digit]))).text == digit


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize(
    "content_type",
    [None, "image/png", "application/octet-stream", "text/plain", "application/json", "image/nonsense", "x"],
)
def test_content_type_of_a_raw_body_is_ignored(server, method, content_type):
    """An image is read whatever its Content-Type says."""
    headers = {"Content-Type": content_type} if content_type else {}
    reply = requests.request(method, server.predictions, data=GOOD, headers=headers, timeout=PATIENCE)
    assert (reply.status_code, reply.text) == (200, "3")


@pytest.mark.parametrize("field", ["data", "image", "file", "content-type"])
def test_form_field_of_any_name_is_read(server, field):
    """`curl -F name=@file` works with any name."""
    reply = requests.post(server.predictions, files={field: ("a.png", GOOD, "image/png")}, timeout=PATIENCE)
    assert (reply.status_code, reply.text) == (200, "3")


def test_form_with_two_images_gets_two_answers(server):
    """They come in the order of the fields, one per line."""
    for first, second in (("a", "b"), ("b", "a")):
        files = {first: DIGITS["7"], second: DIGITS["2"]}
        reply = requests.post(server.predictions, files=files, timeout=PATIENCE)
        assert (reply.status_code, reply.text) == (200, "7\n2")
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"


def test_urlencoded_image_is_refused_with_the_remedy(server):
    """`curl --data-binary` declares a web form, whose body TorchServe drops before the handler."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = requests.post(server.predictions, data=GOOD, headers=headers, timeout=PATIENCE)
    assert reply.status_code == 400
    assert "curl -T FILE" in said(reply)


@pytest.mark.parametrize("name", bad_images(GOOD))
def test_bad_image_gets_400_and_a_reason(server, name):
    """The JSON response says what came and what to send."""
    body, sentence = bad_images(GOOD)[name]
    reply = put(server, body)
    assert reply.status_code == 400
    assert said(reply).startswith(sentence)


def test_body_above_the_limit_is_refused(server):
    """A body larger than max_request_size gets 413, and the server keeps answering."""
    assert put(server, bytes(40 * 2**20)).status_code == 413
    assert put(server, GOOD).text == "3"


def test_concurrent_clients_get_each_their_own_answer(server):
    """32 clients mix good and bad images: every answer and every reason is right."""
    bad = list(bad_images(GOOD).values())
    work = [(body, 200, digit) for digit, body in DIGITS.items()] * (REQUESTS // 16)
    work += [(body, 400, sentence) for body, sentence in bad] * (REQUESTS // 2 // len(bad))
    random.Random(0).shuffle(work)  # noqa: S311 no secret

    def right(task: tuple[bytes, int, str]) -> bool:
        body, status, text = task
        reply = put(server, body)
        if status == 400:
            return reply.status_code == status and said(reply).startswith(text)
        return (reply.status_code, reply.text) == (status, text)

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert all(pool.map(right, work))


def test_models_lists_convnet(server):
    """GET /models on the management port lists the model."""
    reply = requests.get(f"{server.management}/models", timeout=PATIENCE)
    assert [model["modelName"] for model in reply.json()["models"]] == ["convnet"]


def test_description_holds_the_contract(server, contract):
    """GET /models/convnet?customized=true returns the model's inputs and outputs."""
    [described] = requests.get(f"{server.management}/models/convnet?customized=true", timeout=PATIENCE).json()
    told = described["customizedMetadata"]["contract"]
    assert told["input"]["std"] == list(contract.std)
    assert told["labels"] == list(contract.labels)


def test_unknown_model_is_404(server):
    """The address of another model returns an error that says so."""
    reply = requests.put(f"{server.inference}/predictions/other", data=GOOD, timeout=PATIENCE)
    assert reply.status_code == 404
    assert "other" in reply.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/models?url=http://127.0.0.1:1/evil.mar"),
        ("POST", "/models?url=file:///tmp/evil.mar"),
        ("POST", "/workflows?url=http://127.0.0.1:1/evil.war"),
        ("DELETE", "/models/convnet"),
    ],
)
def test_models_are_not_changed_over_http(server, method, path):
    """No address registers or deletes a model."""
    reply = requests.request(method, f"{server.management}{path}", timeout=PATIENCE)
    assert 400 <= reply.status_code < 500
    assert put(server, GOOD).text == "3"


def test_ports_are_open_on_loopback_alone(server):
    """All five ports listen on 127.0.0.1 and nowhere else."""
    ports = range(server.port, server.port + 5)
    listening = {
        c.laddr.port: c.laddr.ip
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port in ports
    }
    assert {ip.removeprefix("::ffff:") for ip in listening.values()} == {"127.0.0.1"}
    assert set(listening) == set(ports)


def test_printed_curl_line_works(server):
    """The line that `make serve` prints can be pasted: its address and image exist."""
    [line] = [line for line in server.printed.splitlines() if "predictions" in line]
    _, curl, address, option, image = line.split()
    assert (curl, address, option) == ("curl", server.predictions, "-T")
    assert image == "tests/images/2.png"
    assert put(server, (IMAGES / "2.png").read_bytes()).text == "2"
