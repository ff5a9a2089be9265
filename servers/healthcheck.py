"""Ask a server for a real answer: the archive's first golden picture must get its label."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import roots  # noqa: F401 first of this project's own
from instance import Instance
from mar import BadArchive, read_manifest
from readiness import Authorize, NotReady, check_answer
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
        url = f"{arguments.address}/predictions/{model}"
        check_answer(url, arguments.archive, authorize=_authorize(arguments))
    except (BadArchive, NotReady, NoToken) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _authorize(arguments: argparse.Namespace) -> Authorize:
    state = Instance(arguments.run).running()
    is_this = state is not None and state.inference == arguments.address
    return partial(state.authorization, INFERENCE) if state is not None and is_this else dict


if __name__ == "__main__":
    sys.exit(main())
