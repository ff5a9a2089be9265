"""Serve an archive by Flask and gunicorn, in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import requests

import roots  # noqa: F401 first of this project's own
from gunicorn_server import NotServed, Server
from instance import WORKER_ENVIRONMENT
from mar import BadArchive
from ports import LOOPBACK, PortTaken, why_not
from readiness import NotReady, check_answer
from settings import ANY_ADDRESS, HIGHEST_PORT, BadSettings, body_limit
from signature import BadKey, check_signature
from starting import READY_TIMEOUT, describe, picture_of

if TYPE_CHECKING:  # torch must not be imported before the fork
    from flask import Flask

PORT = 8890  # the article's


def main() -> int:
    """Serve; return the exit status."""
    arguments = _arguments()
    # TorchServe's modules warn at import about every accelerator that is not installed.
    logging.getLogger("ts").setLevel(logging.ERROR)
    try:
        serve(arguments)
    except (BadArchive, BadKey, BadSettings, NotServed, PortTaken) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before gunicorn listens to it
        return 130
    return 0


def serve(arguments: argparse.Namespace) -> None:
    """Start gunicorn and return when it has been stopped."""
    began = time.monotonic()
    limit = body_limit(arguments.config)
    if arguments.public_key is not None:
        check_signature(arguments.archive, arguments.public_key)
    describe(arguments.archive)
    if not 0 < arguments.port <= HIGHEST_PORT:
        raise BadSettings(f"there is no port {arguments.port}; try PORT=9890")
    if (problem := why_not(arguments.port, arguments.host)) is not None:
        raise PortTaken(f"{problem}; serve on another port: make flask PORT=9890")
    Server(
        f"{arguments.host}:{arguments.port}",
        load=lambda: load(arguments.archive, limit),
        prove=lambda: prove(arguments, began),
    ).serve()


def load(archive: Path, limit: int) -> Flask:
    """Open the archive in a worker: torch's threads do not survive a fork. Raises BadArchive."""
    os.environ.update(WORKER_ENVIRONMENT)
    from engine import Engine
    from flask_views import create_app

    return create_app(Engine(archive), describe(archive), limit)


def prove(arguments: argparse.Namespace, began: float) -> None:
    """Say where and what is served once a golden picture got its answer. Raises NotReady."""
    host = LOOPBACK if arguments.host == ANY_ADDRESS else arguments.host
    url = f"http://{host}:{arguments.port}"
    served = describe(arguments.archive)
    predictions = f"{url}/predictions/{served.model}"
    try:
        check_answer(predictions, arguments.archive, READY_TIMEOUT)
    except NotReady as error:
        if isinstance(error.__cause__, requests.ConnectionError):  # stopped already
            return
        raise
    print(f"serving {arguments.archive} on {url} by Flask")
    print(f"  ready after {time.monotonic() - began:.1f} s")
    print(f"  page  {url}/")
    print(f"  try   curl {predictions} -T {arguments.picture}")
    print("  stop  Ctrl-C", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--host", default=LOOPBACK, help=f"{ANY_ADDRESS} to be reached from outside")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--config", type=Path, default=Path("config.properties"), help="has the largest body")
    parser.add_argument("--picture", type=picture_of, default="image.jpg", help="shown to be tried")
    parser.add_argument("--public-key", type=Path, help="serve only what was signed with this key")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
