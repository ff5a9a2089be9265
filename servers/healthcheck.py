"""Ask a server for a real answer: the archive's first golden picture must get its label.

An archive that was not sealed has none: then the server's own word has to do.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from functools import partial
from pathlib import Path

import requests

import roots  # noqa: F401 first of this project's own
from instance import Instance
from mar import GOLDEN_ANSWERS, BadArchive, read_manifest
from readiness import ANSWER, Authorize, NotReady, check_answer, session
from status_pages import READY
from tokens import INFERENCE, NoToken


def main() -> int:
    """Return 0 where the answer is right, else say what came and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="the .mar that is served")
    parser.add_argument("address", help="of the server: http://127.0.0.1:8080")
    parser.add_argument("--run", type=Path, default=Path("run"), help="of a server that wants tokens")
    arguments = parser.parse_args()
    try:
        model = read_manifest(arguments.archive)["model"]["modelName"]
        if _has_answers(arguments.archive):
            url = f"{arguments.address}/predictions/{model}"
            check_answer(url, arguments.archive, authorize=_authorize(arguments))
        else:
            _check_ready(arguments.address + READY)
    except (BadArchive, NotReady, NoToken) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _has_answers(archive: Path) -> bool:
    with zipfile.ZipFile(archive) as mar:
        return GOLDEN_ANSWERS in mar.namelist()


def _check_ready(url: str) -> None:
    """Raise NotReady where the front door, or Flask, does not say that it is ready."""
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


if __name__ == "__main__":
    sys.exit(main())
