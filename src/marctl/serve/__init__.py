"""Servers of an archive."""
