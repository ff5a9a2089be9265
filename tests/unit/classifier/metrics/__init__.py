"""Tests of the package classifier.metrics."""
