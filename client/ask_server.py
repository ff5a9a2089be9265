"""Ask a server for a picture's label, or for those of a folder's pictures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# So that it can be run by hand, too: it finds what make's PYTHONPATH names.
sys.path.append(str(Path(__file__).resolve().parent.parent / "archive"))

from client import Client
from client_errors import BadPicture, ClientError, NotAllowed, Refused, Unreachable
from picture_folder import DIGITS, find_images, write_answers
from prediction import Prediction
from printable import printable
from table import BadTable, Row, Table

VARIABLE = "TOKEN"  # holds the token: others can read a command line
INTERRUPTED = 130
MOST = 2000  # characters of an error
UNLUCKY = 3  # pictures that get no answer, before it is the server that cannot give one


def main() -> int:
    """Print the label, or write the table; return 1 where there is no label, or not one for each picture."""
    arguments = _arguments()
    try:
        with Client(arguments.url, model=arguments.model, token=os.environ.get(VARIABLE)) as client:
            if arguments.out is not None:
                return _answer_all(client, arguments.pictures, arguments.out)
            label = client.predict(arguments.pictures).label
            print(printable(label, most=sys.maxsize))  # a server may be a stranger's
    except (BadTable, ClientError) as error:
        print(f"error: {printable(str(error), MOST)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {printable(str(arguments.out))} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    return 0


def _answer_all(client: Client, pattern: str, out: Path) -> int:
    images = find_images(pattern, out)
    archive = _archive_behind(client, images)
    with Table(out, archive) as table:
        return write_answers(images, table, lambda todo: _rows(client, todo, archive))


def _archive_behind(client: Client, images: list[str]) -> str:
    """Return the archive's first digits, which the server tells with the first picture that it can read."""
    unlucky = 0
    for image in images:
        try:
            return (client.predict(image).model.sha256 or "")[:DIGITS]
        except (NotAllowed, Unreachable):
            raise
        except (BadPicture, Refused):
            continue
        except ClientError:
            unlucky += 1
            if unlucky == UNLUCKY:
                raise
    return ""


def _rows(client: Client, images: list[str], archive: str) -> Iterator[list[Row]]:
    """Yield a row for each picture. Raises what no other picture would escape."""
    for image, outcome in zip(images, client.predict_many(images), strict=True):
        if isinstance(outcome, Prediction):
            yield [Row(image, outcome.label, "", (outcome.model.sha256 or "")[:DIGITS])]
        elif isinstance(outcome, Unreachable | NotAllowed):
            raise outcome
        else:
            yield [Row(image, "", _error_of(outcome), archive)]


def _error_of(outcome: ClientError) -> str:
    """Return what the archive says of a picture, as in a table that was made without a server."""
    if isinstance(outcome, Refused):
        return f"{outcome.message}; {outcome.hint}"
    return str(outcome)


def _arguments() -> argparse.Namespace:
    epilog = f"A token is taken from the environment's {VARIABLE}."
    parser = argparse.ArgumentParser(description=__doc__, epilog=epilog)
    parser.add_argument("url", help="where the server is, e.g. http://127.0.0.1:8080")
    parser.add_argument("pictures", help="a picture file; with --out a folder, or a glob pattern")
    parser.add_argument("--out", type=Path, help="a .csv, .jsonl or .parquet file for the answers")
    parser.add_argument("--model", default="convnet", help="the model's name (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
