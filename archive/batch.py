"""Answer a folder of pictures from the archive, on all cores, without a server."""

from __future__ import annotations

import argparse
import hashlib
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from engine import Engine
from mar import BadArchive
from picture_folder import DIGITS, find_images, write_answers
from printable import printable
from private_copy import private_copy
from signature import BadKey
from table import BadTable, Row, Table

CHUNK = 64  # pictures that a process reads and answers at once
AHEAD = 4   # chunks a process that wait their turn: what is in memory at once is bounded by them
MAX_BYTES = 2**25  # of one file: as large as what TorchServe takes here; it bounds the memory, too
INTERRUPTED = 130

_engine: Engine  # of a worker process, opened once


def main() -> int:
    """Answer all pictures and write the table; return 1 where some could not be answered."""
    arguments = _arguments()
    _quiet()
    try:
        # All processes open this copy: whoever replaces the file meanwhile, one archive gives all answers.
        with private_copy(arguments.archive, arguments.public_key) as own:
            return _write(arguments, own)
    except (BadArchive, BadKey, BadTable) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {printable(str(arguments.out))} cannot be written: {error.strerror}", file=sys.stderr)
    except BrokenProcessPool:
        print("error: a process died; the same command goes on from where it stopped", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 1


def _write(arguments: argparse.Namespace, own: Path) -> int:
    """Answer by the archive in the file `own`; return the exit status."""
    with Engine(own):  # an archive that does not load is said so once, here
        pass
    images = find_images(arguments.images, arguments.out)
    with own.open("rb") as file:
        archive = hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
    with Table(arguments.out, archive) as table:
        return write_answers(images, table, lambda todo: _answered(todo, own, archive))


def _answered(images: list[str], mar: Path, archive: str) -> Iterator[list[Row]]:
    """Yield the rows chunk by chunk, in order, a few chunks ahead of whoever takes them."""
    processes = min(os.cpu_count() or 1, -(-len(images) // CHUNK))
    if not images:
        return
    # Not forked: a copied torch may wait for threads that were not copied with it.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[list[Row]]] = deque()
    with ProcessPoolExecutor(processes, context, initializer=_open, initargs=(mar,)) as pool:
        try:
            for first in range(0, len(images), CHUNK):
                waiting.append(pool.submit(_answer, images[first : first + CHUNK], archive))
                if len(waiting) >= processes * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _open(mar: Path) -> None:
    """Open the archive in a worker process."""
    global _engine  # noqa: PLW0603 a process pool hands its workers nothing else to keep
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["OMP_NUM_THREADS"] = "1"  # a process for each core computes already
    _quiet()
    _engine = Engine(mar)
    threading.Thread(target=_end_with_parent, args=(mar.parent,), daemon=True).start()


def _quiet() -> None:
    """Spare people TorchServe's warnings about every accelerator that is not installed."""
    logging.disable(logging.WARNING)


def _end_with_parent(copied: Path) -> None:
    """End this process, and delete what was copied and unpacked, when the parent was killed and cannot."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        _engine.close()
        shutil.rmtree(copied, ignore_errors=True)
        os._exit(1)


def _answer(images: list[str], archive: str) -> list[Row]:
    bodies: dict[str, bytes] = {}
    errors: dict[str, str] = {}
    for image in images:
        try:
            size = Path(image).stat().st_size
            if size > MAX_BYTES:
                errors[image] = f"the file has {size:,} bytes; at most {MAX_BYTES:,} are read"
            else:
                bodies[image] = Path(image).read_bytes()
        except OSError as error:
            errors[image] = f"cannot be read: {error.strerror}"
    answers = dict(zip(bodies, _engine.predict(list(bodies.values())), strict=True)) if bodies else {}
    return [
        Row(image, str(answers[image].body), "", archive)
        if image in answers and answers[image].ok
        else Row(image, "", errors.get(image) or answers[image].reason, archive)
        for image in images
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--public-key", type=Path, help="answer only by what was signed with this key")
    parser.add_argument("images", help="a folder, or a glob pattern")
    parser.add_argument("out", type=Path, help="a .csv, .jsonl or .parquet file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
