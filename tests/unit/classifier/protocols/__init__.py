"""Tests of the package classifier.protocols."""
