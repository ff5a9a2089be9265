"""One line of JSON per request if requested, with nothing private in it."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
import requests

from tests.conftest import DIGITS
from tests.support.waiting import PATIENCE, wait_until
from tests.system.test_metrics import put, serving

pytestmark = pytest.mark.torchserve

NAME = "secret-name.png"
SHARED = {"time", "request", "model", "version", "status", "batch", "seconds"}
ANSWERED = SHARED | {"decode_seconds", "confidence"}


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """The requests sent to a server with REQUEST_LOG=1, and the lines that it wrote."""
    with serving(tmp_path_factory.mktemp("logged"), REQUEST_LOG="1") as server:
        bodies = [*DIGITS.values(), b"private bytes", b""] * 20
        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda body: put(server, body), bodies))
        files = {"secret-field": (NAME, DIGITS["1"], "image/png")}
        replies.append(requests.post(server.predictions, files=files, timeout=PATIENCE))
        several = {"secret-field": (NAME, DIGITS["1"], "image/png"), "b": DIGITS["2"]}
        replies.append(requests.post(server.predictions, files=several, timeout=PATIENCE))
        log = server.run / "logs" / "requests.jsonl"
        wait_until(lambda: log.exists() and len(log.read_text().splitlines()) >= len(replies))
        model_log = (server.run / "logs" / "model_log.log").read_text()
        yield replies, log.read_text(), model_log


def test_each_request_has_its_line(logged):
    """It has the response's x-request-id and status."""
    replies, text, _ = logged
    lines = [json.loads(line) for line in text.splitlines()]
    told = {line["request"]: line["status"] for line in lines}
    assert told == {reply.headers["x-request-id"]: reply.status_code for reply in replies}
    assert len(lines) == len(replies)


def test_line_holds_what_is_said_of_it(logged):
    """It has exactly these keys; times and confidences are numbers, the time has its zone."""
    _, text, _ = logged
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        several = {"pictures"} if "pictures" in line else set()
        assert set(line) == (ANSWERED | several if line["status"] == 200 else SHARED | {"reason"})
        assert 1 <= line["batch"] <= 16
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        if line["status"] == 200:
            assert 0 < line["decode_seconds"] < line["seconds"]
            assert 0 < line["confidence"] <= 1
    assert [line["pictures"] for line in lines if "pictures" in line] == [2]
    assert {line["reason"] for line in lines if line["status"] == 400} == {"unknown_format", "empty"}


@pytest.mark.parametrize("private", ["secret-field", NAME, "priv", "127.0.0.1", '"label"', "User-Agent"])
def test_nothing_private_is_in_it(logged, private):
    """It has no content or name of what was sent, no client address and no label."""
    replies, text, model_log = logged
    assert any("priv" in reply.text for reply in replies)
    assert private not in text
    assert '"request":' not in model_log


def test_nothing_is_written_unasked(server):
    """A server that was started without REQUEST_LOG has no such file."""
    assert put(server, DIGITS["1"]).text == "1"
    assert not list((server.run / "logs").glob("requests*"))
