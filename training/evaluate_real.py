"""Measure the weights on images as people send them, read from real files like a request's.

Writes the figures as JSON, and the tables of docs/real-images.md and docs/robustness.png, which compare them
with those of the previous weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

from classifier.contract import Contract
from classifier.image.decode import read_pixels
from model.convnet import ConvNet
from training.calibration import expected_calibration_error
from training.families import FAMILIES, LARGE, WHITE, Family, encoded
from training.mnist import load_test
from training.no_digit import KINDS, Kind
from training.real_report import write_report

MODEL = Path(__file__).parents[1] / "model"
DOCS = MODEL.parent / "docs"
IMAGES = 1_000
NO_DIGITS = 300  # of each kind
SEED = 1
UNSURE = 0.5  # a probability below it is low
FULL = 16  # the darkest level of scikit-learn's digits
OTHERS = {
    "scikit-learn's digits": Image.Resampling.BICUBIC,
    "the same, in blocks": Image.Resampling.NEAREST,
}


class Reader:
    """The weights, behind the handler's own image decoding."""

    def __init__(self, weights: Path, contract: Contract) -> None:
        self.contract = contract
        self.model = ConvNet()
        self.model.load_state_dict(torch.load(weights, weights_only=True))
        self.model.eval()

    def probabilities(self, files: Iterable[bytes]) -> np.ndarray:
        """Return float32 (N, labels) for image files."""
        pixels = np.stack([read_pixels(body, self.contract) for body in files])
        with torch.inference_mode():
            outputs = self.model(torch.from_numpy(self.contract.normalize(pixels)))
        return np.asarray(outputs.exp())

    def figures(self, files: Iterable[bytes], truth: np.ndarray) -> dict[str, float]:
        """Return the accuracy on files (N) with labels (N,), and the calibration error."""
        probabilities = self.probabilities(files)
        right = probabilities.argmax(axis=1) == truth
        error = expected_calibration_error(probabilities.max(axis=1), right)
        return {"images": len(right), "accuracy": float(right.mean()), "calibration_error": round(error, 5)}


def main() -> None:
    """Measure, then write and print the figures."""
    arguments = _arguments()
    reader = Reader(arguments.weights, Contract.from_file(MODEL / "model-config.yaml"))
    measured = measure(reader, arguments.images)
    arguments.figures.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    if arguments.figures == DOCS / "real-images.json":
        write_report(json.loads((DOCS / "real-images-before.json").read_text(encoding="utf-8")), measured)
    for name, severities in measured["families"].items():
        print(f"{name:26}", *(f"{one['accuracy']:7.2%}" for one in severities))
    for name, one in (measured["mnist"] | measured["others"]).items():
        print(f"{name:40} {one['accuracy']:7.2%}  calibration error {one['calibration_error']:.4f}")
    for name, one in measured["no_digit"].items():
        print(f"{name:26} {one['unsure']:7.2%} below {UNSURE}, mean {one['mean']:.2f}")


def measure(reader: Reader, count: int) -> dict[str, Any]:
    """Return all figures, ready for JSON."""
    images, labels = load_test()
    chosen = np.random.default_rng(SEED).permutation(len(images))[:count]
    digits, truth = images[chosen], labels[chosen]
    whole = reader.figures((encoded(Image.fromarray(image), "PNG") for image in images), labels)
    bar = tqdm(FAMILIES, unit="family", leave=False)
    return {
        "mnist": {"MNIST's 10,000 test images": whole},
        "families": {family.name: of_family(reader, family, digits, truth) for family in bar},
        "others": others(reader),
        "no_digit": {kind.name: of_kind(reader, kind, digits[:NO_DIGITS]) for kind in KINDS},
    }


def of_family(
    reader: Reader, family: Family, digits: np.ndarray, truth: np.ndarray
) -> list[dict[str, float]]:
    """Return the figures at each severity, mild first."""
    digits, truth = digits[: family.most], truth[: family.most]
    return [reader.figures(files(family, severity, digits), truth) for severity in family.severities]


def files(family: Family, severity: float, digits: np.ndarray) -> Iterable[bytes]:
    """Return a file of each digit, the same ones every time."""
    chance = np.random.default_rng(SEED)
    return (family.draw(digit, severity, chance) for digit in digits)


def others(reader: Reader) -> dict[str, dict[str, float]]:
    """Return the figures on digits that are not MNIST's: 8 x 8 pixels, enlarged, in both polarities."""
    data = load_digits()
    figures = {}
    for name, way in OTHERS.items():
        for polarity in ("black on white", "white on black"):
            dark = polarity == "black on white"
            images = (foreign(image, way, dark_ink=dark) for image in data.images)
            figures[f"{name}, {polarity}"] = reader.figures(images, data.target)
    return figures


def foreign(image: np.ndarray, way: Image.Resampling, *, dark_ink: bool) -> bytes:
    """Return one of scikit-learn's digits, levels from 0 to 16 (8, 8), enlarged, as a PNG file."""
    ink = np.rint(image / FULL * WHITE).astype(np.uint8)
    large = Image.fromarray(WHITE - ink if dark_ink else ink).resize((LARGE, LARGE), way)
    return encoded(large, "PNG")


def of_kind(reader: Reader, kind: Kind, digits: np.ndarray) -> dict[str, Any]:
    """Return how sure the model is of images without a digit."""
    chance = np.random.default_rng(SEED)
    sure = reader.probabilities(kind.file(digit, chance) for digit in digits).max(axis=1)
    return {
        "images": len(sure),
        "trained": kind.trained,
        "unsure": float((sure < UNSURE).mean()),
        "mean": round(float(sure.mean()), 4),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=MODEL / "convnet.pth", help="the state_dict")
    parser.add_argument("--figures", type=Path, default=DOCS / "real-images.json", help="the file to write")
    parser.add_argument("--images", type=int, default=IMAGES, help="images per family and severity")
    return parser.parse_args()


if __name__ == "__main__":
    main()
