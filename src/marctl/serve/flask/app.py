"""Serve an archive with Flask and gunicorn, in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from marctl.archive.mar import BadArchive
from marctl.archive.private_copy import naming
from marctl.errors import UserError
from marctl.output import say
from marctl.serve import served_copies
from marctl.serve.flask.gunicorn import WORKERS, Server, own_folder
from marctl.serve.options import (
    add_config,
    add_explain,
    add_image,
    add_terms,
    explains,
    image_of,
    terms_of,
)
from marctl.serve.ports import LOOPBACK, why_not
from marctl.serve.scratch import check_room, remedy
from marctl.serve.served_copies import unproven
from marctl.serve.torchserve.instance import EXPLAIN, NOT_INHERITED, WORKER_ENVIRONMENT, Served
from marctl.serve.torchserve.readiness import NotReady, check_answer
from marctl.serve.torchserve.settings import ANY_ADDRESS, HIGHEST_PORT, body_limit
from marctl.serve.torchserve.starting import READY_TIMEOUT

if TYPE_CHECKING:  # torch must not be imported before the fork
    from flask import Flask

    from marctl.archive.opened import Opened

PORT = 8890  # the article's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive, the address and the options."""
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--host", default=LOOPBACK, help=f"the address; {ANY_ADDRESS} for all")
    parser.add_argument("--port", type=int, default=PORT, help="the port (default: %(default)s)")
    add_config(parser)
    add_image(parser)
    add_terms(parser)
    add_explain(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve; return the exit status."""
    serve(arguments)
    return 0


def serve(arguments: argparse.Namespace) -> None:
    """Serve a copy of the archive with gunicorn until it is stopped.

    Every worker loads the copy that was checked here, even if it starts later.
    """
    began = time.monotonic()
    limit, terms, explain = body_limit(arguments.config), terms_of(arguments), explains(arguments)
    if not 0 < arguments.port <= HIGHEST_PORT:
        raise UserError(f"there is no port {arguments.port}; try PORT=9890")
    if (problem := why_not(arguments.port, arguments.host)) is not None:
        raise UserError(f"{problem}; serve on another port: make flask PORT=9890")
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
    """Open the copy, in a worker, because torch's threads do not survive a fork. Raises BadArchive."""
    for name in NOT_INHERITED & os.environ.keys():
        del os.environ[name]
    os.environ.update(WORKER_ENVIRONMENT | ({EXPLAIN: "1"} if explain else {}))
    from marctl.serve.flask.views import create_app

    with naming(Path(served.archive), served.file.parent):
        return create_app(_opened(served.file), served, limit)


def _opened(archive: Path) -> Opened:
    from marctl.archive.opened import Opened

    try:
        return Opened(archive)
    except BadArchive as error:
        raise BadArchive(f"{error}; {advice}" if (advice := remedy(str(error))) else str(error)) from error


def prove(served: Served, arguments: argparse.Namespace, began: float) -> None:
    """Check the first golden image, if there is one, and print the address. Raises NotReady."""
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
    print(f"serving {arguments.archive} on {url} with Flask")
    print(f"  ready after {time.monotonic() - began:.1f} s")
    if (lacks := unproven([served])) is not None:
        print(f"  {lacks}")
    print(f"  page  {url}/")
    print(f"  try   curl {predictions} -T {image_of(arguments.image)}")
    say("  stop  Ctrl-C")
