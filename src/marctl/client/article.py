"""Send the article's own request to the Flask server: the image preprocessed here, as float32 numbers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import requests

from classifier.contract import BadContract, Contract
from classifier.errors import BadImage
from classifier.image.decode import read_pixels
from marctl.errors import UserError
from marctl.printable import printable

URL = "http://127.0.0.1:8890"
TIMEOUT = 30  # seconds
MOST = 2000  # characters of an error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the image and the server."""
    parser.add_argument("image", type=Path, help="an image file")
    parser.add_argument("--url", default=URL, help="the server's address (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print the digit. Raises UserError if there is none."""
    image = arguments.image
    if image.exists() and not image.is_file():  # a pipe may have no end
        raise UserError(printable(f"{image} is not a file; give an image file", MOST))
    try:
        label = predict(arguments.url.rstrip("/"), image.read_bytes())
    except UserError as error:
        raise UserError(printable(str(error), MOST)) from error
    except OSError as error:
        raise UserError(printable(f"cannot read {image}: {error.strerror}", MOST)) from error
    except BadImage as error:
        raise UserError(printable(f"{image}: {error}", MOST)) from error
    print("Predicted digit:", printable(label, most=sys.maxsize))  # the server may be anybody's
    return 0


def predict(url: str, image: bytes) -> str:
    """Return the label of one image file. Raises BadImage and UserError."""
    contract = contract_of(url)
    tensor = contract.normalize(read_pixels(image, contract))  # float32 (C, H, W)
    metadata = json.dumps({"dims": tensor.shape})
    return _ask("POST", f"{url}/test", files={"data": tensor.tobytes(), "metadata": metadata}).text


def contract_of(url: str) -> Contract:
    """Return the contract of the server's archive. Raises UserError."""
    reply = _ask("GET", f"{url}/contract")
    try:
        return Contract.from_dict(reply.json()["contract"])
    except (BadContract, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{reply.url} returned no contract ({error}); is it this project's server?"
        ) from error


def _ask(method: str, url: str, **content: Any) -> requests.Response:
    try:
        reply = requests.request(method, url, timeout=TIMEOUT, **content)
    except requests.ConnectionError as error:
        raise UserError(f"nothing answers on {url}; start the server with: make flask") from error
    except requests.RequestException as error:
        raise UserError(f"{url} does not answer: {error}") from error
    if not reply.ok:
        raise UserError(f"{url} answers {reply.status_code}: {reply.text.strip()}")
    return reply
