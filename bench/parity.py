"""Compare the answers of all runtimes and servers to MNIST's 10,000 test images with the eager model's."""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import requests
import torch
from PIL import Image
from tqdm import tqdm

from bench.load.images import encoded
from bench.report.markdown import circumstances, replace_marked, table
from bench.runtimes import Measured, Work, runtimes_of
from bench.servers.checkout import ROOT, container, flask, torchserve
from marctl.archive.opened import Opened

ROUNDS = 3
DOCS = ROOT / "docs"
MNIST = ROOT / "training" / "mnist_data" / "t10k-images-idx3-ubyte.gz"
IDX_HEAD = 16  # bytes before the pixels
CLIENTS = 8
TIMEOUT = 60
MILLION = 1e6


@dataclass(frozen=True)
class Row:
    """One runtime or server: how many answers agree, the largest difference, and the measurements."""

    name: str
    agree: int
    difference: float | None = None
    size: int | None = None
    measured: Measured | None = None

    def cells(self, images: int) -> list[str]:
        """Return the row of the table."""
        difference = "" if self.difference is None else f"{self.difference:.1e}"
        size = "" if self.size is None else f"{self.size / MILLION:.2f} MB"
        times = ["", "", ""]
        if self.measured is not None:
            one, many = (f"{self.measured.per_image[n] * MILLION:,.0f} µs" for n in ("1", "32"))
            times = [f"{self.measured.load * 1000:,.0f} ms", one, many]
        return [self.name, f"{self.agree:,} of {images:,}", difference, size, *times]


def main() -> None:
    """Query all runtimes and servers; write docs/parity.md and .png."""
    arguments = _arguments()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, Opened(arguments.archive) as opened:
        work = _work(Path(folder), opened)
        eager = np.load(work.inputs.with_name("eager.npy"))
        rows = [*_exported(arguments, work, eager), *_servers(arguments, work, eager, opened)]
    head = ["", "answers", "difference", "file", "load", "an image, batch 1", "batch 32"]
    shown = table(head, [row.cells(len(eager)) for row in rows])
    replace_marked(DOCS / "parity.md", "parity", f"{shown}\n\n{circumstances('torch', 'onnxruntime')}")
    _draw([row for row in rows if row.measured is not None])
    print(shown)


def _work(folder: Path, opened: Opened) -> Work:
    """Write MNIST's images as PNG files and as the model's inputs, and the eager model's outputs."""
    pixels = np.frombuffer(gzip.decompress(MNIST.read_bytes()), np.uint8, offset=IDX_HEAD)
    images = pixels.reshape(-1, 28, 28)
    inputs = opened.classifier.contract.normalize(images[..., None])
    np.save(folder / "inputs.npy", inputs)
    with torch.inference_mode():
        outputs = [opened.classifier.eager(part) for part in torch.from_numpy(inputs).split(100)]
    np.save(folder / "eager.npy", torch.cat(outputs).numpy())
    files = [folder / f"{index:05d}.png" for index in range(len(images))]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(encoded(Image.fromarray(image), "PNG"))
    return Work(folder / "inputs.npy", files)


def _exported(arguments: argparse.Namespace, work: Work, eager: np.ndarray) -> list[Row]:
    """Return the rows of everything with a file; every round runs each of them once."""
    runtimes = runtimes_of(arguments.archive, arguments.exported)
    runs = [[one.run(work) for one in tqdm(runtimes, unit="runtime", leave=False)] for _ in range(ROUNDS)]
    rows = []
    for runtime, measured in zip(runtimes, zip(*runs, strict=True), strict=True):
        outputs = measured[0].outputs
        agree = int((outputs.argmax(axis=1) == eager.argmax(axis=1)).sum())
        difference = float(np.abs(outputs - eager).max())
        rows.append(Row(runtime.name, agree, difference, runtime.size(), Measured.median(measured)))
    return rows


def _servers(arguments: argparse.Namespace, work: Work, eager: np.ndarray, opened: Opened) -> list[Row]:
    """Return the rows of the servers, which answer only with a label."""
    labels = [opened.classifier.contract.labels[index] for index in eager.argmax(axis=1)]
    bodies = [path.read_bytes() for path in work.images]
    name = opened.classifier.manifest["modelName"]
    predictions = f"predictions/{name}"
    answers_of = {}
    with torchserve(arguments.archive) as port:
        answers_of["TorchServe"] = _put_images(f"http://127.0.0.1:{port}/{predictions}", bodies)
    with flask(arguments.archive) as port:
        answers_of["Flask, /predictions"] = _put_images(f"http://127.0.0.1:{port}/{predictions}", bodies)
        answers_of["Flask, /test"] = _post_arrays(f"http://127.0.0.1:{port}/test", np.load(work.inputs))
    for server, target in (("TorchServe in Docker", "torchserve"), ("Flask in Docker", "flask")):
        if _has_image(f"{name}:{target}"):
            with container(f"{name}:{target}", arguments.docker_run.split()) as port:
                answers_of[server] = _put_images(f"http://127.0.0.1:{port}/{predictions}", bodies)
    return [
        Row(server, sum(one == other for one, other in zip(answers, labels, strict=True)))
        for server, answers in answers_of.items()
    ]


def _put_images(url: str, bodies: Sequence[bytes]) -> list[str]:
    """Return the answer to each image file."""
    return _each(bodies, lambda session, body: session.put(url, body, timeout=TIMEOUT))


def _post_arrays(url: str, inputs: np.ndarray) -> list[str]:
    """Return the answer to each float32 image (C, H, W), sent as its numbers."""
    metadata = json.dumps({"dims": inputs.shape[1:]})

    def post(session: requests.Session, one: np.ndarray) -> requests.Response:
        form: dict[str, bytes | str] = {"data": one.tobytes(), "metadata": metadata}
        return session.post(url, files=form, timeout=TIMEOUT)

    return _each(inputs, post)


def _each(
    items: Sequence[Any] | np.ndarray, send: Callable[[requests.Session, Any], requests.Response]
) -> list[str]:
    """Return the answer to each item; several clients send them at once."""
    local = threading.local()  # a session, and so a connection, for each client

    def answer_to(item: Any) -> str:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        answer = send(local.session, item)
        answer.raise_for_status()
        return answer.text

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(answer_to, items))


def _has_image(image: str) -> bool:
    """Return whether Docker is installed and has this image."""
    if shutil.which("docker") is None:
        return False
    inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    return inspected.returncode == 0


def _draw(rows: list[Row]) -> None:
    """Draw the time per image of each runtime, at both batch sizes."""
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.2), layout="constrained")
    places = np.arange(len(rows))
    for shift, batch, color in ((-0.2, "1", "#b0412e"), (0.2, "32", "#2e6f8e")):
        times = [row.measured.per_image[batch] * MILLION for row in rows if row.measured is not None]
        bars = axes.barh(places + shift, times, height=0.38, color=color, label=f"batch {batch}")
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("µs an image, one thread: less is better")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(DOCS / "parity.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("exported", type=Path, help="the folder of its exports")
    parser.add_argument("--docker-run", default="", help="options for `docker run`, if there are images")
    return parser.parse_args()


if __name__ == "__main__":
    main()
