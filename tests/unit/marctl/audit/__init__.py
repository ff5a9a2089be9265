"""Tests of the package marctl.audit."""
