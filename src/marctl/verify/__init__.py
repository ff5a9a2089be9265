"""Holding an archive against its own records, and running it apart."""
