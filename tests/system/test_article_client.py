"""The article's client as a program: it prints the digit, or one sentence with exit status 1."""

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.conftest import DIGITS, free_port, marctl


def client(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the client as a user would."""
    return marctl("article", *arguments)


def failure(*arguments: str) -> str:
    """Return the single error line of a client that fails."""
    done = client(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    return line


@pytest.fixture
def pretender():
    """A server that answers every request with the same text."""
    words = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(words[0])

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()

        def says(text: bytes) -> str:
            words[:] = [text]
            return f"http://127.0.0.1:{server.server_port}"

        yield says
        server.shutdown()


def test_nothing_odd_is_printed_or_waited_for(tmp_path):
    """File names are printed without control characters; a pipe is refused, not read."""
    os.mkfifo(tmp_path / "\x1b[2J.png")
    for image, words in (("none\x1b[2J.png", "cannot read"), ("\x1b[2J.png", "is not a file; give an image")):
        line = failure(str(tmp_path / image))
        assert line.isprintable()
        assert words in line


@pytest.mark.parametrize("name", [*(f"{digit}.png" for digit in DIGITS), "5-large.png"])
def test_digit_is_printed(flask_server, name):
    """Each of the real digits, and one that must be scaled down, is read."""
    done = client(f"tests/images/{name}", "--url", f"{flask_server.url}/")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Predicted digit: {name[0]}\n", "")


def test_constants_are_the_servers(pretender):
    """The server's contract is used, not this checkout's: an unknown colour in it is refused."""
    spec = b'"color": "sepia", "size": 1, "resize": 1, "mean": 1, "std": 1, "labels": 1'
    url = pretender(b'{"contract": {' + spec + b"}}")
    line = failure("tests/images/2.png", "--url", url)
    assert line.startswith(f"error: {url}/contract returned no contract (input.color is 'sepia'; use one of")


@pytest.mark.parametrize("words", [b"hello", b"[]", b"{}", b'{"contract": null}'])
def test_other_server_is_recognised(pretender, words):
    """A server that is not this project's is reported as having no contract."""
    line = failure("tests/images/2.png", "--url", pretender(words))
    assert "/contract returned no contract (" in line
    assert line.endswith("is it this project's server?")


def test_absent_server_is_named_with_the_remedy():
    """If no server is listening, the error says how to start one."""
    url = f"http://127.0.0.1:{free_port()}"
    line = failure("tests/images/2.png", "--url", url)
    assert line == f"error: nothing answers on {url}/contract; start the server with: make flask"


def test_address_that_is_none_is_named():
    """A word that is not a URL is refused."""
    assert failure("tests/images/2.png", "--url", "nonsense").startswith("error: nonsense/contract does not")


def test_refusal_is_printed(server):
    """A response other than 200 is shown: TorchServe has no /contract."""
    line = client("tests/images/2.png", "--url", server.inference).stderr
    assert line.startswith(f"error: {server.inference}/contract answers 404: {{")


def test_unreadable_image_is_named(flask_server, tmp_path):
    """A missing file and a file that is not an image get different errors."""
    missing, text = tmp_path / "none.png", tmp_path / "a b.png"
    text.write_bytes(b"hello")
    assert failure(str(missing), "--url", flask_server.url) == f"error: cannot read {missing}: " + (
        "No such file or directory"
    )
    line = failure(str(text), "--url", flask_server.url)
    assert line.startswith(f"error: {text}: cannot read 5 bytes starting b'hell' as an image")
