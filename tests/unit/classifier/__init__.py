"""Tests of the package classifier."""
