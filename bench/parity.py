"""Do all roads answer alike? MNIST's 10,000 test pictures by each, against the eager model."""

from __future__ import annotations

import argparse
import io
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from engine import Engine
from marked import replace_marked
from mnist import load_test
from over_http import container, flask, has_image, post_arrays, put_pictures, torchserve
from report import circumstances, table
from timed_roads import Measured, Work, exported_roads

ROUNDS = 3
DOCS = Path("docs")
README = Path("README.md")
MILLION = 1e6

TEXT = """# Every road, the same answers

`make parity` sends all 10,000 pictures of MNIST's test set down every road and holds what comes out against
the eager model of `model_store/convnet.mar`. Differences are of log-probabilities. Times are of the model
alone, on one thread, from a tensor that is ready, but for C++ as for the others; medians of {rounds}
interleaved rounds, to be read against each other. A server's own speed is another matter than its answers,
so it has no time here. To load takes in the import of torch, where a road needs it.

{table}

{circumstances}

![Time per picture](parity.png)
"""


@dataclass(frozen=True)
class Row:
    """One road: how many answers agree, the largest difference, and what was measured of it."""

    name: str
    agree: int
    difference: float | None = None
    size: int | None = None
    measured: Measured | None = None

    def cells(self, pictures: int) -> list[str]:
        """Return the row of the table."""
        difference = "" if self.difference is None else f"{self.difference:.1e}"
        size = "" if self.size is None else f"{self.size / MILLION:.2f} MB"
        times = ["", "", ""]
        if self.measured is not None:
            one, many = (f"{self.measured.per_picture[n] * MILLION:,.0f} µs" for n in ("1", "32"))
            times = [f"{self.measured.load * 1000:,.0f} ms", one, many]
        return [self.name, f"{self.agree:,} of {pictures:,}", difference, size, *times]


def main() -> None:
    """Go down all roads, write docs/parity.md and .png, and the table into the README."""
    arguments = _arguments()
    logging.disable(logging.WARNING)
    images, _ = load_test()
    with tempfile.TemporaryDirectory() as folder, Engine(arguments.archive) as engine:
        work = _work(Path(folder), images, engine)
        eager = np.load(work.inputs.with_name("eager.npy"))
        rows = [*_exported(arguments, work, eager), *_servers(arguments, work, eager, engine)]
    head = ["", "answers", "difference", "file", "load", "a picture, batch 1", "batch 32"]
    shown = table(head, [row.cells(len(images)) for row in rows])
    (DOCS / "parity.md").write_text(
        TEXT.format(rounds=ROUNDS, table=shown, circumstances=circumstances("torch", "onnxruntime")),
        encoding="utf-8",
    )
    replace_marked(README, "parity", shown)
    _draw([row for row in rows if row.measured is not None])
    print(shown)


def _work(folder: Path, images: np.ndarray, engine: Engine) -> Work:
    """Write the pictures as PNG files and as the model's inputs, and what the eager model makes of them."""
    handler = engine.handler
    inputs = handler.contract.normalize(images[..., None])
    np.save(folder / "inputs.npy", inputs)
    with torch.inference_mode():
        outputs = [engine.eager(part) for part in torch.from_numpy(inputs).split(100)]
    np.save(folder / "eager.npy", torch.cat(outputs).numpy())
    pictures = []
    for index, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        pictures.append(folder / f"{index:05d}.png")
        pictures[-1].write_bytes(file.getvalue())
    return Work(folder / "inputs.npy", pictures)


def _exported(arguments: argparse.Namespace, work: Work, eager: np.ndarray) -> list[Row]:
    """Return the rows of all that has a file: every round goes down each road once."""
    roads = exported_roads(arguments.archive, arguments.exported)
    runs = [[road.run(work) for road in tqdm(roads, unit="road", leave=False)] for _ in range(ROUNDS)]
    rows = []
    for road, measured in zip(roads, zip(*runs, strict=True), strict=True):
        outputs = measured[0].outputs
        agree = int((outputs.argmax(axis=1) == eager.argmax(axis=1)).sum())
        difference = float(np.abs(outputs - eager).max())
        rows.append(Row(road.name, agree, difference, road.size(), Measured.median(measured)))
    return rows


def _servers(arguments: argparse.Namespace, work: Work, eager: np.ndarray, engine: Engine) -> list[Row]:
    """Return the rows of the servers, which answer by a label alone."""
    labels = [engine.handler.contract.labels[index] for index in eager.argmax(axis=1)]
    bodies = [path.read_bytes() for path in work.pictures]
    name = engine.manifest["modelName"]
    answers = {}
    with torchserve(arguments.archive) as url:
        answers["TorchServe"] = put_pictures(url, bodies)
    with flask(arguments.archive) as url:
        answers["Flask, /predictions"] = put_pictures(f"{url}/predictions/{name}", bodies)
        answers["Flask, /test"] = post_arrays(f"{url}/test", np.load(work.inputs))
    for road, target in (("TorchServe in Docker", "torchserve"), ("Flask in Docker", "flask")):
        if has_image(f"{name}:{target}"):
            with container(f"{name}:{target}", arguments.docker_run.split()) as url:
                answers[road] = put_pictures(f"{url}/predictions/{name}", bodies)
    return [
        Row(road, sum(one == other for one, other in zip(given, labels, strict=True)))
        for road, given in answers.items()
    ]


def _draw(rows: list[Row]) -> None:
    """Draw the time per picture of each road, at both batch sizes."""
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.2), layout="constrained")
    places = np.arange(len(rows))
    for shift, batch, color in ((-0.2, "1", "#b0412e"), (0.2, "32", "#2e6f8e")):
        times = [row.measured.per_picture[batch] * MILLION for row in rows if row.measured is not None]
        bars = axes.barh(places + shift, times, height=0.38, color=color, label=f"batch {batch}")
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("µs a picture, one thread: less is better")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(DOCS / "parity.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("exported", type=Path, help="the folder of its exports")
    parser.add_argument("--docker-run", default="", help="options for `docker run`, where there are images")
    return parser.parse_args()


if __name__ == "__main__":
    main()
