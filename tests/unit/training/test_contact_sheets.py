"""Contact sheets show what is sent, what the model sees, and which answers are wrong."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.support.images import on_sheet
from training.contact_sheets import draw
from training.image_files import encoded
from training.mnist import load_test

IMAGES = load_test()[0][:3]
RED = (176, 65, 46)


class Sevens:
    """Reads every image as a 7."""

    def __init__(self, contract):
        self.contract = contract

    def probabilities(self, files):
        """Return float (N, 10)."""
        return np.tile(np.eye(10)[7], (len(files), 1))


@pytest.mark.parametrize(("truth", "is_red"), [([7, 7, 7], False), ([7, 2, 7], True)], ids=str)
def test_sheet_shows_images_and_answers(truth, is_red, contract, tmp_path):
    """A transparent file is shown on white; a title is red if its answer is wrong."""
    files = []
    for digit in IMAGES:
        ink = on_sheet(digit, (100, 100), 60, (0.5, 0.5))
        files.append(encoded(Image.merge("LA", (Image.new("L", ink.size), ink)), "PNG"))
    path = tmp_path / "sheet.png"
    draw(files, np.array(truth), Sevens(contract), path)
    sheet = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")).astype(int)
    reddish = np.abs(sheet - RED).max(axis=2) < 40
    assert reddish.any() == is_red
    levels = sheet[..., 0]
    # Three images as sent, mostly white, and three as seen, mostly black.
    assert 0.02 < (levels < 20).mean() < 0.1
