"""Answer pictures from the archive in this process, with no server."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from engine import Engine
from mar import BadArchive
from printable import printable
from signature import BadKey


def main() -> int:
    """Print each picture's answer; return 1 where a picture or the archive could not be read."""
    arguments = _arguments()
    # TorchServe's modules warn at import about every accelerator that is not installed.
    logging.getLogger("ts").setLevel(logging.ERROR)
    try:
        with Engine(arguments.archive, arguments.public_key) as engine:
            alone = len(arguments.images) == 1
            return max([_predict(engine, image, alone=alone) for image in arguments.images])
    except (BadArchive, BadKey) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _predict(engine: Engine, image: Path, *, alone: bool) -> int:
    name = printable(str(image), most=sys.maxsize)
    try:
        if image.exists() and not image.is_file():  # a pipe or a device may have no end
            print(f"error: {name} is no file; name a picture", file=sys.stderr)
            return 1
        body = image.read_bytes()
    except OSError as error:
        print(f"error: cannot read {name}: {error.strerror}", file=sys.stderr)
        return 1
    [answer] = engine.predict([body])
    if not answer.ok:
        print(f"error: {name}: {printable(answer.reason)}", file=sys.stderr)
        return 1
    label = printable(str(answer.body), most=sys.maxsize)
    print(label if alone else f"{name}\t{label}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--public-key", type=Path, help="answer only by what was signed with this key")
    parser.add_argument("images", type=Path, nargs="+", help="picture files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
