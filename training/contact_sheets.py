"""Sheets that show images as they are sent, and beside each what the model sees of it and answers.

One sheet has 40 plots of a digit, the other 40 cells of forms. Each is a PNG file in docs/.
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image, ImageOps

from classifier.contract import Contract
from classifier.image.decode import read_pixels
from training.evaluate_real import DOCS, MODEL, SEED, Reader
from training.families import FAMILIES
from training.mnist import load_test

ROWS, PAIRS = 8, 5  # pairs in a row
SIDE = 140  # pixels of an image on the sheet
DPI = 100
SHEETS = {"plot of matplotlib": "seen-plots.png", "cell of a form": "seen-cells.png"}


def main() -> None:
    """Draw both sheets with the committed weights."""
    reader = Reader(MODEL / "convnet.pth", Contract.from_file(MODEL / "model-config.yaml"))
    images, labels = load_test()
    chosen = np.random.default_rng(SEED).permutation(len(images))[: ROWS * PAIRS]
    for family in FAMILIES:
        if family.name in SHEETS:
            chance = np.random.default_rng(SEED)
            # As many of each severity.
            files = [
                family.draw(images[index], family.severities[place % len(family.severities)], chance)
                for place, index in enumerate(chosen)
            ]
            draw(files, labels[chosen], reader, DOCS / SHEETS[family.name])


def draw(files: list[bytes], truth: np.ndarray, reader: Reader, path: Path) -> None:
    """Draw up to 40 image files with what the model sees and answers; wrong answers are red."""
    mpl.use("agg")
    probabilities = reader.probabilities(files)
    figure, grid = plt.subplots(ROWS, 2 * PAIRS, figsize=(11, 9.6), layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    pairs = grid.reshape(-1, 2)
    for (sent, seen), body, label, likely in zip(pairs, files, truth, probabilities, strict=False):
        sent.imshow(_shown(body), interpolation="nearest")
        seen.imshow(read_pixels(body, reader.contract)[..., 0], cmap="gray", vmin=0, vmax=255)
        answer = int(likely.argmax())
        color = "black" if answer == label else "#b0412e"
        seen.set_title(f"{answer}, {likely[answer]:.0%}", fontsize=9, color=color)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def _shown(body: bytes) -> Image.Image:
    """Return the image of a file, on white, as it fits into its place."""
    image = Image.open(io.BytesIO(body)).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    return ImageOps.contain(page.convert("RGB"), (SIDE, SIDE))


if __name__ == "__main__":
    main()
