"""Tests of the package marctl."""
