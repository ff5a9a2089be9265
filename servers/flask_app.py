"""Serve an archive by Flask and gunicorn, in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import requests

import roots  # noqa: F401 first of this project's own
import served_copies
from gunicorn_server import WORKERS, NotServed, Server, own_folder
from instance import EXPLAIN, NOT_INHERITED, WORKER_ENVIRONMENT, Served
from mar import BadArchive
from ports import LOOPBACK, PortTaken, why_not
from private_copy import naming
from readiness import NotReady, check_answer
from say import say
from scratch import BadScratch, check_room, remedy
from served_copies import unproven
from settings import ANY_ADDRESS, HIGHEST_PORT, BadSettings, body_limit
from signature import BadKey
from starting import READY_TIMEOUT, add_explain, add_sealed, explains, picture_of, terms_of

if TYPE_CHECKING:  # torch must not be imported before the fork
    from flask import Flask

    from engine import Engine

PORT = 8890  # the article's


def main() -> int:
    """Serve; return the exit status."""
    arguments = _arguments()
    # TorchServe's modules warn at import about every accelerator that is not installed.
    logging.getLogger("ts").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until gunicorn listens to it
    try:
        serve(arguments)
    except (BadArchive, BadKey, BadScratch, BadSettings, NotServed, PortTaken) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before gunicorn listens to it
        return 130
    return 0


def serve(arguments: argparse.Namespace) -> None:
    """Start gunicorn with a copy of the archive, and return when it has been stopped.

    Each worker loads the copy that was checked here, also one that is started later.
    """
    began = time.monotonic()
    limit, terms, explain = body_limit(arguments.config), terms_of(arguments), explains(arguments)
    if not 0 < arguments.port <= HIGHEST_PORT:
        raise BadSettings(f"there is no port {arguments.port}; try PORT=9890")
    if (problem := why_not(arguments.port, arguments.host)) is not None:
        raise PortTaken(f"{problem}; serve on another port: make flask PORT=9890")
    with own_folder() as folder:
        [served] = served_copies.take([arguments.archive], folder / served_copies.FOLDER, terms)
        check_room([served.file], folder, WORKERS)
        Server(
            f"{arguments.host}:{arguments.port}",
            folder,
            load=lambda: load(served, limit, explain=explain),
            prove=lambda: prove(served, arguments, began),
        ).serve()


def load(served: Served, limit: int, *, explain: bool) -> Flask:
    """Open the copy in a worker: torch's threads do not survive a fork. Raises BadArchive."""
    for name in NOT_INHERITED & os.environ.keys():
        del os.environ[name]
    os.environ.update(WORKER_ENVIRONMENT | ({EXPLAIN: "1"} if explain else {}))
    from flask_views import create_app

    with naming(Path(served.archive), served.file.parent):
        return create_app(_opened(served.file), served, limit)


def _opened(archive: Path) -> Engine:
    from engine import Engine

    try:
        engine = Engine(archive)
    except BadArchive as error:
        raise BadArchive(f"{error}; {advice}" if (advice := remedy(str(error))) else str(error)) from error
    if engine.is_foreign:
        engine.close()
        raise BadArchive(
            f"the handler of {archive} is not this project's, and Flask answers by no other; "
            "serve it by TorchServe: make serve SEALED=no"
        )
    return engine


def prove(served: Served, arguments: argparse.Namespace, began: float) -> None:
    """Say where and what is served once a golden picture got its answer, if there is one. Raises NotReady."""
    host = LOOPBACK if arguments.host == ANY_ADDRESS else arguments.host
    url = f"http://{host}:{arguments.port}"
    predictions = f"{url}/predictions/{served.model}"
    try:
        if served.sealed:
            check_answer(predictions, served.file, READY_TIMEOUT)
    except NotReady as error:
        if isinstance(error.__cause__, requests.ConnectionError):  # stopped already
            return
        raise
    print(f"serving {arguments.archive} on {url} by Flask")
    print(f"  ready after {time.monotonic() - began:.1f} s")
    if (lacks := unproven([served])) is not None:
        print(f"  {lacks}")
    print(f"  page  {url}/")
    print(f"  try   curl {predictions} -T {arguments.picture}")
    say("  stop  Ctrl-C")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--host", default=LOOPBACK, help=f"{ANY_ADDRESS} to be reached from outside")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--config", type=Path, default=Path("config.properties"), help="has the largest body")
    parser.add_argument("--picture", type=picture_of, default="image.jpg", help="shown to be tried")
    parser.add_argument("--public-key", type=Path, help="serve only what was signed with this key")
    add_explain(parser)
    add_sealed(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
