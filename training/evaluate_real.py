"""Measure the weights on images as people send them, read from real files like a request's.

They are digits by other hands than MNIST's, MNIST's digits as families.py draws them, and images without a
digit. Writes the figures as JSON, and the tables of docs/real-images.md and docs/robustness.png, which
compare them with those of the previous weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
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
from training.families import FAMILIES
from training.image_files import LARGE, WHITE, Family, encoded
from training.mnist import load_test
from training.no_digit import KINDS, Kind
from training.other_digits import semeion
from training.real_report import write_report

MODEL = Path(__file__).parents[1] / "model"
DOCS = MODEL.parent / "docs"
IMAGES = 1_000
NO_DIGITS = 300  # of each kind
SEED = 1
UNSURE = 0.5  # a probability below it is low
SURE = 0.9  # a probability from which on a wrong answer is not expected
FULL = 16  # the darkest level of scikit-learn's digits
POLARITIES = {"black on white": True, "white on black": False}  # whether the ink is dark


@dataclass(frozen=True)
class Other:
    """Images of digits that were not made here, as files of `side` x `side` pixels in either polarity."""

    name: str
    load: Callable[[], tuple[np.ndarray, np.ndarray]]  # ink uint8 (N, H, W), labels (N,)
    side: int
    resampling: Image.Resampling = Image.Resampling.NEAREST

    def __str__(self) -> str:
        return self.name

    def file(self, ink: np.ndarray, *, dark_ink: bool) -> bytes:
        """Return ink, uint8 (H, W), as a PNG file, black on white or white on black."""
        image = Image.fromarray(WHITE - ink if dark_ink else ink)
        return encoded(image.resize((self.side, self.side), self.resampling), "PNG")


def scikit_learn() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits, uint8 (1797, 8, 8), ink 255 on 0, and their labels, int64 (1797,)."""
    data = load_digits()
    return np.rint(data.images / FULL * WHITE).astype(np.uint8), data.target


OTHERS = (
    Other("scikit-learn's digits", scikit_learn, LARGE, Image.Resampling.BICUBIC),
    Other("the same, in blocks", scikit_learn, LARGE),
    Other("Semeion's digits, 16 x 16", semeion, 16),
    Other("Semeion's digits, 160 x 160", semeion, 160),
)


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
        """Return the figures of files (N) with labels (N,), as `figures` does."""
        return figures(self.probabilities(files), truth)


def figures(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the figures of probabilities (N, labels), given the true labels (N,).

    These are the number of images, the accuracy, the calibration error, and the share of answers that are
    wrong although their probability is 0.9 or more.
    """
    right, sure = probabilities.argmax(axis=1) == truth, probabilities.max(axis=1)
    return {
        "images": len(right),
        "accuracy": float(right.mean()),
        "calibration_error": round(expected_calibration_error(sure, right), 5),
        "wrong_but_sure": float((~right & (sure >= SURE)).mean()),
    }


def main() -> None:
    """Measure, then write and print the figures."""
    arguments = _arguments()
    contract = Contract.from_file(MODEL / "model-config.yaml")
    if arguments.unprepared:
        contract = replace(contract, ink=None)
    reader = Reader(arguments.weights, contract)
    measured = measure(reader, arguments.images)
    arguments.figures.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    if arguments.figures == DOCS / "real-images.json":
        write_report(json.loads((DOCS / "real-images-before.json").read_text(encoding="utf-8")), measured)
    for name, severities in measured["families"].items():
        print(f"{name:26}", *(f"{one['accuracy']:7.2%}" for one in severities))
    for name, one in (measured["mnist"] | measured["others"]).items():
        print(
            f"{name:44} {one['accuracy']:7.2%}  calibration error {one['calibration_error']:.4f}"
            f"  wrong, but sure {one['wrong_but_sure']:.2%}"
        )
    for digit, one in measured["others_by_digit"].items():
        print(f"{digit} is wrong in {one['wrong']} of {one['images']}, but sure in {one['wrong_but_sure']}")
    for name, one in measured["no_digit"].items():
        print(f"{name:26} {one['unsure']:7.2%} below {UNSURE}, mean {one['mean']:.2f}")


def measure(reader: Reader, count: int) -> dict[str, Any]:
    """Return all figures, ready for JSON."""
    images, labels = load_test()
    order = np.random.default_rng(SEED).permutation(len(images))
    digits, truth = images[order], labels[order]
    whole = reader.figures((encoded(Image.fromarray(image), "PNG") for image in images), labels)
    bar = tqdm(FAMILIES, unit="family", leave=False)
    rows, by_digit = others(reader)
    return {
        "mnist": {"MNIST's 10,000 test images": whole},
        "others": rows,
        "others_by_digit": by_digit,
        "families": {family.name: of_family(reader, family, digits, truth, count) for family in bar},
        "no_digit": {kind.name: of_kind(reader, kind, digits[: min(count, NO_DIGITS)]) for kind in KINDS},
    }


def of_family(
    reader: Reader, family: Family, digits: np.ndarray, truth: np.ndarray, count: int
) -> list[dict[str, float]]:
    """Return the figures at each severity, mild first, of the first `count` digits that the family draws."""
    chosen = family.choice(truth, count)
    digits, truth = digits[chosen], truth[chosen]
    return [reader.figures(files(family, severity, digits), truth) for severity in family.severities]


def files(family: Family, severity: float, digits: np.ndarray) -> Iterable[bytes]:
    """Return a file of each digit, the same ones every time."""
    chance = np.random.default_rng(SEED)
    return (family.draw(digit, severity, chance) for digit in digits)


def others(reader: Reader) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Return the figures of images not made here: of each set in each polarity, and of each digit."""
    rows, answers, truths = {}, [], []
    for other in OTHERS:
        ink, truth = other.load()
        for polarity, dark_ink in POLARITIES.items():
            probabilities = reader.probabilities(other.file(image, dark_ink=dark_ink) for image in ink)
            rows[f"{other.name}, {polarity}"] = figures(probabilities, truth)
            answers.append(probabilities)
            truths.append(truth)
    return rows, by_digit(np.concatenate(answers), np.concatenate(truths))


def by_digit(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, int]]:
    """Return what happens to each digit, given probabilities (N, labels) and the true labels (N,).

    These are the number of its images, how many of them are read as another digit, and how many of these with
    a probability of 0.9 or more.
    """
    wrong = probabilities.argmax(axis=1) != truth
    sure = wrong & (probabilities.max(axis=1) >= SURE)
    counted = {"images": truth, "wrong": truth[wrong], "wrong_but_sure": truth[sure]}
    return {
        str(digit): {name: int((which == digit).sum()) for name, which in counted.items()}
        for digit in range(probabilities.shape[1])
    }


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
    parser.add_argument("--unprepared", action="store_true", help="only resize images, as without input.ink")
    parser.add_argument("--images", type=int, default=IMAGES, help="images per family and severity")
    return parser.parse_args()


if __name__ == "__main__":
    main()
