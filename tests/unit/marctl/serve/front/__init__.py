"""Tests of the package marctl.serve.front."""
