"""Ask a server for a real answer: the archive's first golden picture must get its label."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mar import BadArchive, read_manifest
from readiness import NotReady, check_answer


def main() -> int:
    """Return 0 where the answer is right, else say what came and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="the .mar that is served")
    parser.add_argument("address", help="of the server: http://127.0.0.1:8080")
    arguments = parser.parse_args()
    try:
        model = read_manifest(arguments.archive)["model"]["modelName"]
        check_answer(f"{arguments.address}/predictions/{model}", arguments.archive)
    except (BadArchive, NotReady) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
