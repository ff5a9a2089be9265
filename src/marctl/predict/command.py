"""Answer images, with an archive or by asking a server.

`marctl predict ARCHIVE IMAGE...` prints their labels. `marctl predict ARCHIVE IMAGES --out FILE` writes the
labels of a folder or glob pattern to a table. With --url a server answers, and no archive is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from marctl.errors import UserError

ENDINGS = ".csv, .jsonl or .parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the archive or server, the images and the output."""
    parser.epilog = "The server's token is read from the environment variable TOKEN."
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="the archive, unless --url is given, and the images"
    )
    parser.add_argument("--out", type=Path, help=f"a {ENDINGS} file for the answers to a folder of images")
    parser.add_argument("--public-key", type=Path, help="refuse an archive that was not signed with this key")
    parser.add_argument("--url", help="the server that answers, e.g. http://127.0.0.1:8080")
    parser.add_argument("--model", default="convnet", help="the server's model (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Answer; return 1 if an image could not be answered."""
    images: list[str] = arguments.files
    if not arguments.url:
        arguments.archive, images = Path(images[0]), images[1:]
    if not images:
        raise UserError(f"no image was given; add one: marctl predict {arguments.archive} image.png")
    if arguments.out is not None and len(images) > 1:
        raise UserError(f"--out takes one folder or pattern, but {len(images)} were given; quote the pattern")
    # Imported only when used: asking a server needs no runtime, and a runtime needs no HTTP client.
    if arguments.url:
        from marctl.predict import ask_server

        return ask_server.run(arguments, images)
    if arguments.out is not None:
        from marctl.predict import batch

        arguments.images = images[0]
        return batch.run(arguments)
    from marctl.predict import predict

    return predict.run(arguments, [Path(image) for image in images])
