"""Prove an archive's model on its golden images, alone and in batches."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier import golden
from classifier.contract import Contract
from classifier.image.decode import read_pixels
from marctl.archive.opened import Opened
from marctl.errors import UserError
from marctl.export.batches import try_batches

if TYPE_CHECKING:
    from classifier.classifier import Classifier


def prove(path: Path) -> None:
    """Check an exported model against the class's answers, also in batches. Raises UserError."""
    with Opened(path) as opened, zipfile.ZipFile(path) as mar:
        answers = json.loads(mar.read(golden.ANSWERS))["pictures"]
        images = {name: mar.read(f"{golden.FOLDER}/{name}") for name in answers}
        try_golden_batches(opened.classifier, images, answers)


def try_golden_batches(
    classifier: Classifier, images: Mapping[str, bytes], answers: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Check answers in batches against the recorded ones. Raises UserError.

    Returns the outputs for made-up images by name.
    """
    batch = classifier.preprocess(pixels_of(classifier, images))
    expected = np.array([answers[name]["outputs"] for name in images])
    batch_size = classifier.config.get("batchSize", 1)
    return try_batches(classifier.inference, classifier.contract, batch, expected, batch_size)


def pixels_of(reader: Classifier | Contract, images: Mapping[str, bytes]) -> list[np.ndarray]:
    """Return what a model is given for each golden image, uint8 (H, W, C). Raises UserError."""
    pixels = []
    for name, body in images.items():
        try:
            pixels.append(
                read_pixels(body, reader) if isinstance(reader, Contract) else reader.read_pixels(body)
            )
        except ValueError as error:  # the archive's own BadImage
            raise UserError(f"the golden image {name} cannot be read: {error}") from error
    return pixels
