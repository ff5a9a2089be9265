"""Tests of the package marctl.serve.torchserve.patches."""
