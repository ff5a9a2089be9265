"""Helpers shared by several test modules; fixtures are in tests/conftest.py."""
