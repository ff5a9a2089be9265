"""Tests of the package marctl.export."""
