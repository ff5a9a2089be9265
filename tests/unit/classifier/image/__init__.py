"""Tests of the package classifier.image."""
