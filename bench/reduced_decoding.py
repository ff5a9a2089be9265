"""What it changes that photo-sized JPEGs are decoded at an eighth of their size: pixels, outputs, answers."""

from __future__ import annotations

import argparse
import io
import logging
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from contract import Contract
from engine import Engine
from images import read_pixels
from load_pictures import phone_photo
from marked import replace_marked
from mnist import load_test
from report import table

PAGE = Path("docs") / "performance.md"
CONFIG = Path(__file__).parents[1] / "model" / "model-config.yaml"
Pixels = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Read photos of MNIST's test digits both ways, and compare."""
    arguments = _arguments()
    logging.disable(logging.WARNING)
    images, labels = load_test()
    chosen = range(0, len(images), len(images) // arguments.photos)
    with ProcessPoolExecutor() as pool:
        read = list(
            tqdm(pool.map(both_ways, [images[i] for i in chosen], chosen), total=len(chosen), unit="photo")
        )
    with Engine(arguments.archive) as engine:
        handler = engine.handler
        reduced, full = (
            handler.inference(handler.preprocess([pair[way] for pair in read])) for way in (0, 1)
        )
    print(shown := _table(read, reduced, full, labels[list(chosen)]))
    replace_marked(PAGE, "reduced-decoding", shown)


def _table(read: list[Pixels], reduced: np.ndarray, full: np.ndarray, labels: np.ndarray) -> str:
    levels = max(int(np.abs(one.astype(int) - other).max()) for one, other in read)
    answers = [outputs.argmax(axis=1) for outputs in (reduced, full)]
    right = " and ".join(f"{(answer == labels).sum():,}" for answer in answers)
    cells = [f"{len(read):,}", f"{levels}", f"{np.abs(reduced - full).max():.2f}"]
    cells += [f"{(answers[0] == answers[1]).sum():,}", right]
    return table(["photos", "grey levels apart", "outputs apart", "same answers", "right, each way"], [cells])


def both_ways(image: np.ndarray, seed: int) -> Pixels:
    """Return the pixels of a photo of a digit as the handler reads them, and from the whole picture."""
    contract = Contract.from_file(CONFIG)
    photo = phone_photo(Image.fromarray(image), seed)
    whole = Image.open(io.BytesIO(photo)).convert(contract.mode)
    size = (contract.width, contract.height)
    full = np.asarray(whole.resize(size, Image.Resampling.BILINEAR))
    return read_pixels(photo, contract), full[..., None]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--photos", type=int, default=500, help="how many of MNIST's test digits")
    return parser.parse_args()


if __name__ == "__main__":
    main()
