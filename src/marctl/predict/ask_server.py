"""Ask a server for the label of an image, or the labels of a folder of images."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from marctl.client.client import Client
from marctl.client.errors import BadImage, ClientError, NotAllowed, Refused, Unreachable
from marctl.client.prediction import Prediction
from marctl.errors import UserError
from marctl.predict.image_folder import DIGITS, find_images, write_answers
from marctl.predict.table import Row, Table
from marctl.printable import printable

VARIABLE = "TOKEN"  # of the environment, with the token: others can read a command line
MOST = 2000  # characters of an error
MOST_FAILURES = 3  # images without an answer; then the server is at fault, not the image


def run(arguments: argparse.Namespace, images: list[str]) -> int:
    """Print each label, or write the table; return 1 if an image has none."""
    try:
        with Client(arguments.url, model=arguments.model, token=os.environ.get(VARIABLE)) as client:
            if arguments.out is not None:
                return _answer_all(client, images[0], arguments.out)
            for image in images:
                label = printable(client.predict(image).label, most=sys.maxsize)  # of any server
                print(label if len(images) == 1 else f"{printable(image, most=sys.maxsize)}	{label}")
    except (UserError, ClientError) as error:
        raise UserError(printable(str(error), MOST)) from error
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise
    return 0


def _answer_all(client: Client, pattern: str, out: Path) -> int:
    images = find_images(pattern, out)
    archive = _archive_of(client, images.files)
    with Table(out, archive) as table:
        return write_answers(images, table, lambda todo: _rows(client, todo, archive))


def _archive_of(client: Client, images: list[str]) -> str:
    """Return the first digits of the archive's SHA-256, from the first image that is answered."""
    failures = 0
    for image in images:
        try:
            return (client.predict(image).model.sha256 or "")[:DIGITS]
        except (NotAllowed, Unreachable):
            raise
        except (BadImage, Refused):
            continue
        except ClientError:
            failures += 1
            if failures == MOST_FAILURES:
                raise
    return ""


def _rows(client: Client, images: list[str], archive: str) -> Iterator[list[Row]]:
    """Yield a row for each image. Raises an error that would affect all other images, too."""
    for image, outcome in zip(images, client.predict_many(images), strict=True):
        if isinstance(outcome, Prediction):
            yield [Row(image, outcome.label, "", (outcome.model.sha256 or "")[:DIGITS])]
        elif isinstance(outcome, Unreachable | NotAllowed):
            raise outcome
        else:
            yield [Row(image, "", _error_of(outcome), archive)]


def _error_of(outcome: ClientError) -> str:
    """Return the archive's message about an image, as in a table made without a server."""
    if isinstance(outcome, Refused):
        return f"{outcome.message}; {outcome.hint}"
    return str(outcome)
