"""The archive behind Flask: the same answers as TorchServe's, and the article's POST /test."""

import hashlib
import json
import random
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import numpy as np
import psutil
import pytest
import requests
import yaml
from torchvision import transforms

from bench.load.images import opened
from marctl.serve.flask.views import create_app
from marctl.serve.torchserve.instance import Served
from marctl.serve.torchserve.settings import body_limit
from tests.conftest import DIGITS, IMAGES, ROOT
from tests.support.flask_process import flask_of
from tests.support.images import bad_images
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wire import GOOD, PREDICTIONS, QUIRKS, TABLE, Asked, said

CLIENTS, REQUESTS = 32, 800


def ask(url: str, asked: Asked) -> requests.Response:
    return requests.request(
        asked.method, url + asked.path, data=asked.body, headers=asked.headers, timeout=PATIENCE
    )


@pytest.mark.parametrize("name", QUIRKS)
def test_quirks_of_torchserve_are_its_own(flask_server, name):
    """Flask does not copy TorchServe's quirks, which no client relies on."""
    reply = ask(flask_server.url, TABLE[name])
    assert (reply.status_code, reply.status_code == 200) == (QUIRKS[name], reply.text == "3")


@pytest.mark.parametrize("name", sorted(TABLE.keys() - QUIRKS))
def test_answers_are_those_of_torchserve(server, flask_server, name):
    """Status, type and body of every response match TorchServe's, for good requests and bad.

    Errors that TorchServe itself sends before the handler sees the request are an exception: here they are
    JSON like all errors.
    """
    theirs, ours = (ask(url, TABLE[name]) for url in (server.inference, flask_server.url))
    assert theirs.status_code < 500
    assert ours.status_code == theirs.status_code
    assert ours.headers.get("Content-Type") == theirs.headers.get("Content-Type")
    if name == "ping":
        assert ours.json() == theirs.json()
    elif theirs.status_code == 404:
        assert "there is no" in said(ours)
    else:
        assert ours.content == theirs.content


@pytest.mark.parametrize("digit", DIGITS)
def test_every_digit_is_read(flask_server, digit):
    """The response is the bare digit as text, without a line break."""
    reply = ask(flask_server.url, Asked(DIGITS[digit]))
    assert (reply.status_code, reply.content) == (200, digit.encode())
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [PREDICTIONS, "/test"])
def test_wrong_method_is_405(flask_server, path, method):
    """A method that cannot send an image gets a list of those that can."""
    reply = ask(flask_server.url, Asked(path=path, method=method))
    assert reply.status_code == 405
    assert said(reply).startswith(f"{method} is not allowed here; use ")
    assert "POST" in reply.headers["Allow"]


@pytest.mark.parametrize("path", [PREDICTIONS, "/predictions/other", "/test"])
def test_body_above_the_limit_is_refused(server, flask_server, path):
    """A body that TorchServe refuses as too large gets the same status, with a sentence."""
    limit = body_limit(ROOT / "config.properties")
    for size, too_large in ((limit, False), (limit + 1, True), (2 * limit, True)):
        asked = Asked(bytes(size), path=path)
        ours = ask(flask_server.url, asked)
        if path != "/test":
            assert ours.status_code == ask(server.inference, asked).status_code
        assert (ours.status_code == 413) == too_large
        if too_large:
            assert said(ours) == f"the body is too large; send at most {limit} bytes"
    assert ask(flask_server.url, Asked()).text == "3"


@pytest.mark.parametrize(("path", "method"), [("/nothing", "POST"), (PREDICTIONS, "PATCH")])
def test_answer_arrives_though_the_body_was_not_wanted(flask_server, path, method):
    """A client still sending a large body sees the error, not a closed connection."""
    connection = HTTPConnection(flask_server.url.removeprefix("http://"), timeout=PATIENCE)
    connection.request(method, path, body=bytes(2**26))  # unlike requests, it fails on a closed connection
    reply = connection.getresponse()
    assert json.loads(reply.read())["error"]["code"] == reply.status >= 404
    connection.close()


def test_address_is_taken_as_it_came(server, flask_server):
    """Two slashes are not merged, and nothing is redirected."""
    for url in (server.inference, flask_server.url):
        reply = requests.post(f"{url}/predictions//1.0", data=GOOD, timeout=PATIENCE, allow_redirects=False)
        assert reply.status_code == 404


def test_limit_is_that_of_the_settings(archive, tmp_path):
    """max_request_size sets the limit, also for chunks without a length."""
    settings = tmp_path / "mine.properties"
    settings.write_text("max_request_size=300\n")
    with flask_of(archive, "--config", str(settings)) as small:
        assert ask(small.url, Asked(DIGITS["2"])).text == "2"  # 295 bytes
        assert ask(small.url, Asked(DIGITS["3"])).status_code == 413  # 351 bytes
        chunks = requests.post(small.url + PREDICTIONS, data=iter([GOOD]), timeout=PATIENCE)
        assert chunks.status_code == 413


def articles_client(url: str, image: bytes) -> requests.Response:
    """Send a request like the article's reader: torchvision's transforms, numpy's bytes, requests' files."""
    spec = yaml.safe_load((ROOT / "model" / "model-config.yaml").read_text())["input"]
    steps = transforms.Compose([
        transforms.Grayscale(),
        transforms.Resize(spec["size"]),
        transforms.ToTensor(),
        transforms.Normalize(spec["mean"], spec["std"]),
    ])  # fmt: skip
    tensor = steps(opened(image))
    metadata = json.dumps({"dims": list(tensor.shape)})
    files = {"data": tensor.numpy().tobytes(), "metadata": metadata}
    return requests.post(f"{url}/test", files=files, timeout=PATIENCE)


@pytest.mark.parametrize("name", [*(f"{digit}.png" for digit in DIGITS), "5-large.png"])
def test_client_of_the_article_works_unmodified(flask_server, name):
    """Its float32 values and dims get the digit, as text."""
    reply = articles_client(flask_server.url, (IMAGES / name).read_bytes())
    assert (reply.status_code, reply.text) == (200, name[0])
    assert reply.headers["Content-Type"].startswith("text/plain")


@pytest.fixture(scope="module")
def tensor(contract, engine):
    """The normalised values of a 3, float32 (C, H, W)."""
    return contract.normalize(engine.handler.read_pixels(GOOD))


def test_tensor_may_come_in_other_ways(flask_server, tensor):
    """Form fields without a file name and shapes with a batch dimension are accepted."""
    for files in (
        {"data": (None, tensor.tobytes()), "metadata": (None, json.dumps({"dims": tensor.shape}))},
        {"data": tensor.tobytes(), "metadata": json.dumps({"dims": [1, *tensor.shape]})},
    ):
        reply = requests.post(f"{flask_server.url}/test", files=files, timeout=PATIENCE)
        assert (reply.status_code, reply.text) == (200, "3")


BAD_METADATA = {
    "no-json": (b"{", "'metadata' is not JSON ("),
    "no-utf-8": (b"\xff", "'metadata' is not JSON ("),
    "deep-json": (b"[" * 100_000, "'metadata' is not JSON ("),
    "no-object": (b"[1, 28, 28]", "'metadata' is [1, 28, 28], without dims"),
    "no-dims": (b'{"shape": 1}', "'metadata' is {'shape': 1}, without dims"),
    "text": (b'{"dims": "1,28,28"}', "dims is '1,28,28', not a list of integers"),
    "fractions": (b'{"dims": [1, 28.0, 28]}', "dims is [1, 28.0, 28], not a list of integers"),
    "true": (b'{"dims": [true, 28, 28]}', "dims is [True, 28, 28], not a list of integers"),
    "nested": (b'{"dims": [[1, 28, 28]]}', "dims is [[1, 28, 28]], not a list of integers"),
    "none": (b'{"dims": []}', "dims is [], but the model takes [1, 28, 28]"),
    "negative": (b'{"dims": [1, -28, -28]}', "dims is [1, -28, -28], but the model takes [1, 28, 28]"),
    "zero": (b'{"dims": [0, 28, 28]}', "dims is [0, 28, 28], but the model takes [1, 28, 28]"),
    "huge": (b'{"dims": [1, 1000000000, 9]}', "dims is [1, 1000000000, 9], but the model takes [1, 28, 28]"),
    "many": (b'{"dims": [' + b"1," * 9999 + b"1]}", "dims is [1, 1, 1, "),
    "flat": (b'{"dims": [28, 28]}', "dims is [28, 28], but the model takes [1, 28, 28]"),
    "batch": (b'{"dims": [2, 1, 28, 28]}', "dims is [2, 1, 28, 28], but the model takes [1, 28, 28]"),
}


@pytest.mark.parametrize("name", BAD_METADATA)
def test_bad_metadata_is_refused(flask_server, tensor, name):
    """Wrong dims get 400 with what came and what to send, in short, however long they are."""
    metadata, sentence = BAD_METADATA[name]
    files = {"data": tensor.tobytes(), "metadata": metadata}
    reply = requests.post(f"{flask_server.url}/test", files=files, timeout=PATIENCE)
    assert reply.status_code == 400
    assert said(reply).startswith(sentence)
    assert len(reply.text) < 300


def bad_data(tensor):
    """Return invalid contents of `data`, each with the expected sentence."""
    nan, endless, huge = (tensor.copy() for _ in range(3))
    nan[0, 0, 0], endless[0, 3, 3:5] = float("nan"), float("inf")
    huge[:] = np.where(huge > 0, 3e38, -3e38)  # an image of one value may become all zeros
    return {
        "twelve-bytes": (bytes(12), "a float32 image of [1, 28, 28] is 3136 bytes, got 12; send"),
        "empty": (b"", "a float32 image of [1, 28, 28] is 3136 bytes, got 0"),
        "float64": (bytes(2 * 3136), "a float32 image of [1, 28, 28] is 3136 bytes, got 6272"),
        "nan": (nan.tobytes(), "1 of the 784 values are NaN or infinite; send finite"),
        "infinite": (endless.tobytes(), "2 of the 784 values are NaN or infinite; send finite"),
        "overflowing": (huge.tobytes(), "the values reach 3e+38, too large for the model; normalise them"),
    }


@pytest.mark.parametrize("name", ["twelve-bytes", "empty", "float64", "nan", "infinite", "overflowing"])
def test_bad_data_is_refused(flask_server, tensor, name):
    """Bytes that are not an image of the model's shape get 400 and the numbers."""
    data, sentence = bad_data(tensor)[name]
    files = {"data": data, "metadata": json.dumps({"dims": tensor.shape})}
    reply = requests.post(f"{flask_server.url}/test", files=files, timeout=PATIENCE)
    assert (reply.status_code, said(reply)[: len(sentence)]) == (400, sentence)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"files": {"metadata": b"{}"}}, "the form has no part 'data', it has 'metadata'; send multipart"),
        ({"files": {"data": b"x"}}, "the form has no part 'metadata', it has 'data'; send multipart"),
        ({"data": b"x"}, "the form has no part 'data', it has none; send multipart"),
        ({}, "the form has no part 'data', it has"),
    ],
    ids=["no-data", "no-metadata", "raw", "nothing"],
)
def test_form_without_a_part_is_refused(flask_server, content, sentence):
    """The missing part is named, with what the whole form must contain."""
    reply = requests.post(f"{flask_server.url}/test", timeout=PATIENCE, **content)
    assert reply.status_code == 400
    assert said(reply).startswith(sentence)
    assert "{\"dims\": [1, 28, 28]} as 'metadata'" in said(reply)


def mixed_work(times: int) -> list[tuple[bytes, int, str]]:
    """Return good and bad images in random order, each with its status and the start of its answer."""
    good = [(body, 200, digit) for digit, body in DIGITS.items()]
    bad = [(body, 400, sentence) for body, sentence in bad_images(GOOD).values()]
    work = good * (times // len(good)) + bad * (times // len(bad))
    random.Random(0).shuffle(work)  # noqa: S311 no secret
    return work


def test_concurrent_clients_get_each_their_own_answer(flask_server):
    """32 clients mix good and bad images: every answer and every reason is right."""

    def right(task: tuple[bytes, int, str]) -> bool:
        body, status, text = task
        reply = ask(flask_server.url, Asked(body))
        told = reply.text if status == 200 else said(reply)
        return reply.status_code == status and told.startswith(text)

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert all(pool.map(right, mixed_work(REQUESTS // 2)))


def test_engine_answers_several_threads(engine):
    """Threads that share an engine each get their own status and answer."""

    def right(task: tuple[bytes, int, str]) -> bool:
        body, status, text = task
        [answer] = engine.predict([body])
        return answer.status == status and (answer.reason or answer.body).startswith(text)

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert all(pool.map(right, mixed_work(REQUESTS)))


def test_contract_is_told(flask_server, archive, contract):
    """GET /contract returns how to preprocess images, and which archive answers."""
    told = requests.get(f"{flask_server.url}/contract", timeout=PATIENCE).json()
    assert (told["name"], told["version"]) == ("convnet", "1.0")
    assert told["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert told["contract"] == {
        "color": contract.color,
        "size": [contract.height, contract.width],
        "resize": contract.resize,
        "ink": contract.ink,
        "mean": list(contract.mean),
        "std": list(contract.std),
        "labels": list(contract.labels),
        "outputs": contract.outputs,
    }


def test_fault_of_ours_is_503(engine, monkeypatch):
    """If the handler fails, the client gets TorchServe's 503 in our JSON form, without a traceback."""
    app = create_app(engine, Served("convnet", "1.0", "convnet.mar", ""), 2**20)

    def failing(*_):
        raise ArithmeticError

    monkeypatch.setattr(engine.handler, "answer", failing)
    reply = app.test_client().put(PREDICTIONS, data=GOOD)
    assert reply.status_code == 503
    assert reply.json["error"]["message"] == "the server failed on this request"


def test_runtime_is_loaded_in_the_workers_alone(archive):
    """The runtime, whose threads would not survive a fork, is loaded in each worker; torch in none.

    The test has its own server: a worker that explained an answer to another test has loaded torch.
    """
    with flask_of(archive) as running:
        check_runtime(psutil.Process(running.process.pid))


def check_runtime(main):
    """Check what gunicorn's main process and its workers have loaded."""
    workers = main.children()
    assert len(workers) == 2

    def files_of(process):
        return " ".join(mapped.path for mapped in process.memory_maps())

    # The second worker may still be loading when the first one answers.
    wait_until(lambda: all("onnxruntime" in files_of(worker) for worker in workers))
    files = [files_of(process) for process in (main, *workers)]
    assert ["onnxruntime" in one for one in files] == [False, True, True]
    assert not any("libtorch" in one for one in files)


def test_port_is_open_on_loopback_alone(flask_server):
    """It listens on 127.0.0.1 and nowhere else."""
    port = int(flask_server.url.rpartition(":")[2])
    listening = {
        c.laddr.ip for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port == port
    }  # fmt: skip
    assert listening == {"127.0.0.1"}
