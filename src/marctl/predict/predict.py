"""Answer images with an archive in this process, without a server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from marctl.predict.answering import Answering, open_archive
from marctl.printable import printable


def run(arguments: argparse.Namespace, images: list[Path]) -> int:
    """Print each image's answer; return 1 if an image could not be answered."""
    with open_archive(arguments.archive, arguments.public_key) as answering:
        alone = len(images) == 1
        return max([_predict(answering, image, alone=alone) for image in images])


def _predict(answering: Answering, image: Path, *, alone: bool) -> int:
    name = printable(str(image), most=sys.maxsize)
    try:
        if image.exists() and not image.is_file():  # a pipe or a device may have no end
            print(f"error: {name} is not a file; give an image file", file=sys.stderr)
            return 1
        body = image.read_bytes()
    except OSError as error:
        print(f"error: cannot read {name}: {error.strerror}", file=sys.stderr)
        return 1
    [answer] = answering.predict([body])
    if not answer.ok:
        print(f"error: {name}: {printable(answer.reason)}", file=sys.stderr)
        return 1
    label = printable(str(answer.body), most=sys.maxsize)
    print(label if alone else f"{name}\t{label}")
    return 0
