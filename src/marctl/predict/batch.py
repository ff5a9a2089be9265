"""Answer a folder of images with an archive, on all cores, without a server."""

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

from marctl.archive.private_copy import private_copy
from marctl.errors import UserError
from marctl.predict.answering import Answering, open_archive
from marctl.predict.image_folder import DIGITS, find_images, write_answers
from marctl.predict.table import Row, Table

CHUNK = 64  # images that a process reads and answers at once
AHEAD = 4  # pending chunks per process; this bounds the memory
MAX_BYTES = 2**25  # of one file: what TorchServe accepts here; this bounds the memory, too

_answering: Answering  # of a worker process, opened once


def run(arguments: argparse.Namespace) -> int:
    """Answer all images and write the table; return 1 if some could not be answered."""
    _quiet()
    try:
        # All processes open this copy, so all answers come from one archive even if the file is replaced.
        with private_copy(arguments.archive, arguments.public_key) as own:
            return _write(arguments, own)
    except BrokenProcessPool as error:
        raise UserError(
            "a process died; run the same command again: it continues where it stopped"
        ) from error
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        raise


def _write(arguments: argparse.Namespace, own: Path) -> int:
    """Answer with the archive in the file `own`; return the exit status."""
    with open_archive(own):  # reports an archive that does not load, once
        pass
    images = find_images(arguments.images, arguments.out)
    with own.open("rb") as file:
        archive = hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
    with Table(arguments.out, archive) as table:
        return write_answers(images, table, lambda todo: _answered(todo, own, archive))


def _answered(images: list[str], mar: Path, archive: str) -> Iterator[list[Row]]:
    """Yield the rows chunk by chunk, in order, computed a few chunks ahead of the consumer."""
    processes = min(os.cpu_count() or 1, -(-len(images) // CHUNK))
    if not images:
        return
    # Not forked: torch may wait for threads that fork() does not copy.
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
            # Wait for the chunks in progress. Otherwise this process can end while the pool is closing its
            # pipe, and Python's own exit handler fails.
            pool.shutdown(cancel_futures=True)


def _open(mar: Path) -> None:
    """Open the archive in a worker process."""
    global _answering  # noqa: PLW0603 a process pool gives its workers no other state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["OMP_NUM_THREADS"] = "1"  # there is already a process per core
    _quiet()
    _answering = open_archive(mar)
    threading.Thread(target=_end_with_parent, args=(mar.parent,), daemon=True).start()


def _quiet() -> None:
    """Silence TorchServe's warnings about every accelerator that is not installed."""
    logging.disable(logging.WARNING)


def _end_with_parent(copied: Path) -> None:
    """When the parent has been killed, delete the copied and unpacked files for it, and exit."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        _answering.close()
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
    answers = dict(zip(bodies, _answering.predict(list(bodies.values())), strict=True)) if bodies else {}
    return [
        Row(image, str(answers[image].body), "", archive)
        if image in answers and answers[image].ok
        else Row(image, "", errors.get(image) or answers[image].reason, archive)
        for image in images
    ]
