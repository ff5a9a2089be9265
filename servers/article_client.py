"""Ask the Flask server by the article's own request: the picture preprocessed here, as float32 numbers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import requests

import roots  # noqa: F401 first of this project's own
from contract import BadContract, Contract
from images import read_pixels
from printable import printable
from refusal import BadImage

URL = "http://127.0.0.1:8890"
TIMEOUT = 30  # seconds
MOST = 2000  # characters of an error


class NoAnswer(RuntimeError):
    """The server was not reached, or refused; the text says what it said."""


def main() -> int:
    """Print the digit; return 1 where there is none."""
    arguments = _arguments()
    try:
        if arguments.picture.exists() and not arguments.picture.is_file():  # a pipe may have no end
            return _failed(f"{arguments.picture} is no file; name a picture")
        label = predict(arguments.url.rstrip("/"), arguments.picture.read_bytes())
        print("Predicted digit:", printable(label, most=sys.maxsize))  # the server may be a stranger's
    except OSError as error:
        return _failed(f"cannot read {arguments.picture}: {error.strerror}")
    except BadImage as error:
        return _failed(f"{arguments.picture}: {error}")
    except NoAnswer as error:
        return _failed(str(error))
    return 0


def predict(url: str, picture: bytes) -> str:
    """Return the label of one picture file. Raises BadImage and NoAnswer."""
    contract = contract_of(url)
    tensor = contract.normalize(read_pixels(picture, contract))  # float32 (C, H, W)
    metadata = json.dumps({"dims": tensor.shape})
    return _ask("POST", f"{url}/test", files={"data": tensor.tobytes(), "metadata": metadata}).text


def contract_of(url: str) -> Contract:
    """Return what the server's archive says of its input and labels. Raises NoAnswer."""
    reply = _ask("GET", f"{url}/contract")
    try:
        return Contract.from_dict(reply.json()["contract"])
    except (BadContract, KeyError, TypeError, ValueError) as error:
        raise NoAnswer(f"{reply.url} holds no contract ({error}); is it this project's server?") from error


def _ask(method: str, url: str, **content: Any) -> requests.Response:
    try:
        reply = requests.request(method, url, timeout=TIMEOUT, **content)
    except requests.ConnectionError as error:
        raise NoAnswer(f"nothing answers on {url}; start the server with: make flask") from error
    except requests.RequestException as error:
        raise NoAnswer(f"{url} does not answer: {error}") from error
    if not reply.ok:
        raise NoAnswer(f"{url} answers {reply.status_code}: {reply.text.strip()}")
    return reply


def _failed(sentence: str) -> int:
    print(f"error: {printable(sentence, MOST)}", file=sys.stderr)
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, help="a picture file")
    parser.add_argument("--url", default=URL, help="where the server is (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
