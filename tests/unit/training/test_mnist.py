"""The data set files are the original ones or are refused."""

import gzip

import numpy as np
import pytest

from training import mnist


def test_test_set_is_mnists():
    """10,000 images of 28 x 28, each with its label; the files have the original digests."""
    images, labels = mnist.load_test()
    assert images.shape == (10_000, 28, 28)
    assert images.dtype == labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_changed_file_is_refused(tmp_path, monkeypatch):
    """If one byte of a file differs, the error gives both digests."""
    for file in mnist.FOLDER.glob("*.gz"):
        data = bytearray(gzip.decompress(file.read_bytes()))
        data[-1] ^= 1
        (tmp_path / file.name).write_bytes(gzip.compress(data, 1))
    monkeypatch.setattr(mnist, "FOLDER", tmp_path)
    with pytest.raises(mnist.BadDataset, match=r"has the SHA-256 .*, the original has"):
        mnist.load_test()


def test_missing_file_is_named(tmp_path, monkeypatch):
    """The error says which file is missing and how to restore it."""
    monkeypatch.setattr(mnist, "FOLDER", tmp_path)
    with pytest.raises(mnist.BadDataset, match=r"t10k-images-idx3-ubyte.gz is missing; restore it with: git"):
        mnist.load_test()


def test_no_idx_file_is_refused():
    """Bytes that are not an IDX file are recognised by their start."""
    with pytest.raises(mnist.BadDataset, match="not an IDX file"):
        mnist.parse_idx(b"<html>not found</html>")
