"""Answers from an archive, without a server."""
