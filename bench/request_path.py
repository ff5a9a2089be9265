"""Where the time of a request goes in a worker: step by step, in one process on one thread."""

from __future__ import annotations

import argparse
import io
import logging
import os
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from PIL import Image

from arm_archives import plain_archive
from engine import Engine
from front_end import Receiver
from load_pictures import load_pictures
from marked import replace_marked
from onnx_model import THREADS
from report import circumstances, table

REPEATS = 200
BATCHES = (1, 16)
PICTURES = ("28x28 PNG", "250x250 RGBA PNG")
DOCS = Path("docs")
PAGE = DOCS / "performance.md"
MICROSECONDS = 1e6
# What wrk sends, with what TorchServe adds.
HEADERS = {"Host": "127.0.0.1:8080", "Content-Length": "295", "url_path": "", "explain": "False"}
COLORS = ("#8c8c8c", "#2e6f8e", "#6aa084", "#b0412e", "#d9a441")

Steps = dict[str, Callable[[], object]]


def main() -> None:
    """Time the steps of both handlers in turn; print the table, write it and the picture into docs/."""
    arguments = _arguments()
    logging.disable(logging.WARNING)
    os.environ[THREADS] = "1"
    import torch  # for the plain handler alone

    torch.set_num_threads(1)
    pictures = load_pictures()
    with tempfile.TemporaryDirectory() as folder:
        plain = plain_archive(Path(folder))
        with Engine(plain) as usual, Engine(arguments.archive) as ours:
            times = {
                (name, batch, who): timed(steps(engine, pictures[name], batch), batch)
                for name in PICTURES
                for batch in BATCHES
                for who, steps, engine in (("plain", plain_steps, usual), ("this archive", own_steps, ours))
            }
    shown = _table(times)
    print(shown)
    replace_marked(PAGE, "request-path", f"{shown}\n\n{circumstances('torch', 'onnxruntime', 'pillow')}")
    _draw(times)


def own_steps(engine: Engine, picture: bytes, batch: int) -> Steps:
    """Return the steps of this project's handler, each for a whole batch."""
    handler = engine.handler
    pixels = [handler.read_pixels(picture)] * batch
    scaled = handler.preprocess(pixels)
    outputs = handler.inference(scaled)
    return {
        "read the message": _reading(Receiver().batch, picture, batch),
        "picture to pixels": lambda: [handler.read_pixels(picture) for _ in range(batch)],
        "pixels to batch": lambda: handler.preprocess(pixels),
        "model": lambda: handler.inference(scaled),
        "answer": lambda: _response(engine, handler.postprocess(outputs)),
    }


def plain_steps(engine: Engine, picture: bytes, batch: int) -> Steps:
    """Return the steps of the usual handler; its transforms are one: they end in a tensor a picture."""
    from ts.protocol.otf_message_handler import _retrieve_inference_msg as read

    handler = engine.handler
    tensor = handler.preprocess([{"body": picture}] * batch)
    outputs = handler.inference(tensor)
    tensors = list(tensor)
    return {
        "read the message": _reading(read, picture, batch),
        "picture to pixels": lambda: [handler.transform(_opened(picture)) for _ in range(batch)],
        "pixels to batch": lambda: _stacked(tensors),
        "model": lambda: handler.inference(tensor),
        "answer": lambda: _response(engine, handler.postprocess(outputs)),
    }


def timed(steps: Steps, batch: int) -> dict[str, float]:
    """Return the median microseconds of each step for one request of the batch, the steps in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) / batch * MICROSECONDS for name, values in seconds.items()}


def _opened(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture))


def _stacked(tensors: Sequence[Any]) -> Any:
    import torch

    return torch.stack(list(tensors))


def _reading(read: Callable[[Any], object], picture: bytes, batch: int) -> Callable[[], object]:
    """Return what reads a batch from a connection on which it comes over and over."""
    here, there = socket.socketpair()
    message = _request(picture) * batch + struct.pack("!i", -1)

    def send() -> None:
        with here, there:
            for _ in range(REPEATS):
                there.sendall(message)
            time.sleep(60)  # what was sent is read until then

    threading.Thread(target=send, daemon=True).start()
    return lambda: read(here)


def _request(picture: bytes) -> bytes:
    headers = b"".join(_field(k.encode()) + _field(v.encode()) for k, v in HEADERS.items())
    end = struct.pack("!i", -1)
    return _field(b"0" * 36) + headers + end + _field(b"body") + _field(b"") + _field(picture) + end


def _field(data: bytes) -> bytes:
    return struct.pack("!i", len(data)) + data


def _response(engine: Engine, labels: list[str]) -> bytes:
    from ts.context import RequestProcessor
    from ts.service import create_predict_response

    context = engine._service.context
    context.request_processor = [RequestProcessor({}) for _ in labels]
    ids = dict.fromkeys(range(len(labels)), "0" * 36)
    response: bytes = create_predict_response(labels, ids, "Prediction success", 200, context=context)
    return response


def _table(times: dict[tuple[str, int, str], dict[str, float]]) -> str:
    steps = list(next(iter(times.values())))
    head = ["µs a request", *steps, "sum"]
    rows = []
    for (name, batch, who), of in times.items():
        values = [*of.values(), sum(of.values())]
        rows.append([f"{name}, batch {batch}, {who}", *(f"{value:,.0f}" for value in values)])
    return table(head, rows)


def _draw(times: dict[tuple[str, int, str], dict[str, float]]) -> None:
    figure, axes = plt.subplots(len(PICTURES), 1, figsize=(9, 5), layout="constrained")
    for axis, picture in zip(axes, PICTURES, strict=True):
        cases = {f"{who}, batch {batch}": of for (name, batch, who), of in times.items() if name == picture}
        left = [0.0] * len(cases)
        for color, step in zip(COLORS, next(iter(cases.values())), strict=True):
            widths = [of[step] for of in cases.values()]
            axis.barh(list(cases), widths, left=left, color=color, label=step)
            left = [begin + width for begin, width in zip(left, widths, strict=True)]
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.set(title=picture, xlabel="µs of a worker's time for a request")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(DOCS / "request-path.png", dpi=100, metadata={"Software": None})
    plt.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
