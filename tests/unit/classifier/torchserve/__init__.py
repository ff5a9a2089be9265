"""Tests of the package classifier.torchserve."""
