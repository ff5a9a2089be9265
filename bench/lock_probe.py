"""Answer one picture over and over for some seconds on some threads, and print how many a second."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine import Engine
from mar import known_answer
from onnx_model import THREADS
from road import ROADS

REQUEST = "request"  # a whole one: picture file, pixels, what the archive answers by, label


def main() -> None:
    """Say when everything is loaded, and begin at a word: several processes then run at the same time."""
    arguments = _arguments()
    logging.disable(logging.WARNING)
    os.environ[THREADS] = "1"
    with Engine(arguments.archive) as engine:
        answer = _answer_one(arguments, engine)
        answer()
        print("ready", flush=True)
        sys.stdin.readline()
        print(_per_second(answer, arguments.threads, arguments.seconds))


def _answer_one(arguments: argparse.Namespace, engine: Engine) -> Callable[[], object]:
    handler = engine.handler
    if arguments.road == REQUEST:
        _, body, _ = known_answer(arguments.archive)
        return lambda: handler.postprocess(handler.outputs([body]))
    model = ROADS[arguments.road](arguments.file)
    batch = np.zeros((1, *handler.contract.shape), np.float32)
    return lambda: model(batch)


def _per_second(answer: Callable[[], object], threads: int, seconds: float) -> float:
    counts = [0] * threads
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < end:
            answer()
            counts[index] += 1

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / seconds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("road", choices=(*ROADS, REQUEST))
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("file", type=Path, help="the file of this road: the archive, or an exported file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
