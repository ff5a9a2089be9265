"""Tests of the package marctl.build."""
