"""Tests of the package classifier.runtime."""
