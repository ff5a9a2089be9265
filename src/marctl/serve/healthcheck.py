"""Check a server with a real request: the archive's first golden image must get its label.

An unsealed archive has no golden images; for it the server's own readiness page has to do.
"""

from __future__ import annotations

import argparse
import zipfile
from functools import partial
from pathlib import Path

import requests

from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from marctl.archive.mar import read_manifest
from marctl.serve.options import add_run
from marctl.serve.status_pages import READY
from marctl.serve.torchserve.instance import Instance
from marctl.serve.torchserve.readiness import ANSWER, Authorize, NotReady, check_answer, session
from marctl.serve.torchserve.tokens import INFERENCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive and the server's address."""
    parser.add_argument("archive", type=Path, help="the .mar that is served")
    parser.add_argument("address", help="the server's address: http://127.0.0.1:8080")
    add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 if the answer is right. Raises UserError if it is not."""
    model = read_manifest(arguments.archive)["model"]["modelName"]
    if _has_answers(arguments.archive):
        url = f"{arguments.address}/predictions/{model}"
        check_answer(url, arguments.archive, authorize=_authorize(arguments))
    else:
        _check_ready(arguments.address + READY)
    return 0


def _has_answers(archive: Path) -> bool:
    with zipfile.ZipFile(archive) as mar:
        return GOLDEN_ANSWERS in mar.namelist()


def _check_ready(url: str) -> None:
    """Raise NotReady unless the reverse proxy, or Flask, reports that it is ready."""
    try:
        with session() as asking:
            reply = asking.get(url, timeout=ANSWER)
    except requests.RequestException as error:
        raise NotReady(f"{url} does not answer: {error}") from error
    if not reply.ok:
        raise NotReady(f"{url} answers {reply.status_code}: {reply.text.strip()}")


def _authorize(arguments: argparse.Namespace) -> Authorize:
    state = Instance(arguments.run).running()
    is_this = state is not None and state.inference == arguments.address
    return partial(state.authorization, INFERENCE) if state is not None and is_this else dict
