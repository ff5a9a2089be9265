"""Measure the committed weights on MNIST's 10,000 test images, and draw their mistakes.

The course of the training is drawn, too, from the figures that it saved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from classifier.contract import Contract
from model.convnet import ConvNet
from training.calibration import expected_calibration_error
from training.mnist import load_test
from training.train import as_served

MODEL = Path(__file__).parents[1] / "model"
DOCS = MODEL.parent / "docs"
CONFUSION, MISTAKES, TRAINING = DOCS / "confusion.png", DOCS / "mistakes.png", DOCS / "training.png"
MISTAKES_SHOWN = 24
DPI = 120


def main() -> None:
    """Print the accuracy, overall and per digit, and write the three images into docs/."""
    mpl.use("agg")
    contract = Contract.from_file(MODEL / "model-config.yaml")
    images, truth = load_test()
    log_probabilities = classify(images, contract)
    answers = log_probabilities.argmax(axis=1)
    matrix = confusion(truth, answers, len(contract.labels))
    report(matrix, contract.labels)
    error = expected_calibration_error(np.exp(log_probabilities.max(axis=1)), answers == truth)
    print(f"expected calibration error {error:.4f}")
    draw_confusion(matrix, contract.labels)
    draw_mistakes(images, truth, log_probabilities, contract.labels)
    draw_training(json.loads((MODEL / "convnet.json").read_text(encoding="utf-8")))
    print("wrote", ", ".join(str(path.relative_to(MODEL.parent)) for path in (CONFUSION, MISTAKES, TRAINING)))


def classify(images: np.ndarray, contract: Contract) -> np.ndarray:
    """Return log-probabilities float32 (N, labels) for uint8 images (N, H, W)."""
    model = ConvNet()
    model.load_state_dict(torch.load(MODEL / "convnet.pth", weights_only=True))
    with torch.inference_mode():
        outputs = model.eval()(torch.from_numpy(as_served(images, contract)))
    return np.asarray(outputs)


def confusion(truth: np.ndarray, answers: np.ndarray, count: int) -> np.ndarray:
    """Count the answers: row by the true label, column by the answer."""
    matrix = np.zeros((count, count), dtype=int)
    np.add.at(matrix, (truth, answers), 1)
    return matrix


def report(matrix: np.ndarray, labels: tuple[str, ...]) -> None:
    """Print the share of correct answers, overall and per label."""
    right, total = int(np.trace(matrix)), int(matrix.sum())
    print(f"{right / total:.2%} right ({right:,} of {total:,})")
    for index, label in enumerate(labels):
        right, total = int(matrix[index, index]), int(matrix[index].sum())
        print(f"  {label}  {right / total:7.2%}  {right:5,} of {total:5,}")


def draw_confusion(matrix: np.ndarray, labels: tuple[str, ...]) -> None:
    """Draw the mistakes as a heat map; the diagonal, the correct answers, is not coloured."""
    mistakes = np.where(np.eye(len(labels), dtype=bool), 0, matrix)
    figure, axes = plt.subplots(figsize=(6.4, 6), layout="constrained")
    axes.imshow(mistakes, cmap="OrRd", vmax=max(1, mistakes.max()))
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            dark = mistakes[row, column] > mistakes.max() / 2
            color = "#777777" if row == column else "white" if dark else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=9, color=color)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("answered")
    axes.set_ylabel("written")
    axes.set_title(f"{int(mistakes.sum())} mistakes in {int(matrix.sum()):,} test images")
    _save(figure, CONFUSION)


def draw_mistakes(
    images: np.ndarray, truth: np.ndarray, log_probabilities: np.ndarray, labels: tuple[str, ...]
) -> None:
    """Draw the mistakes that the model was most sure of, the worst first."""
    answers = log_probabilities.argmax(axis=1)
    wrong = np.flatnonzero(answers != truth)
    worst = wrong[np.argsort(log_probabilities[wrong, truth[wrong]])][:MISTAKES_SHOWN]
    figure, grid = plt.subplots(4, 6, figsize=(7.2, 5.6), layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, worst, strict=False):
        sure = np.exp(log_probabilities[index, answers[index]])
        axes.imshow(images[index], cmap="gray_r")
        read_as = f"{labels[truth[index]]} read as {labels[answers[index]]}"
        axes.set_title(f"{read_as}\n{sure:.0%} sure", fontsize=9)
    _save(figure, MISTAKES)


def draw_training(figures: dict[str, Any]) -> None:
    """Draw the accuracy on the held-out images after each epoch."""
    figure, both = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axes, key, color, title in (
        (both[0], "validation_accuracy_per_epoch", "#2e6f8e", "as MNIST has them"),
        (both[1], "validation_accuracy_as_sent_per_epoch", "#b0412e", "drawn and photographed at random"),
    ):
        axes.plot(range(1, len(figures[key]) + 1), [100 * share for share in figures[key]], color=color)
        axes.set(title=title, xlabel="epoch")
        axes.set_ylabel(f"right of {figures['validation_images']:,} held out, in %")
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, TRAINING)


def _save(figure: Figure, path: Path) -> None:
    # Without the library's version in it, the image changes only when the figures do.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
