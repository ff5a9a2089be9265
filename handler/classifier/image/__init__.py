"""Decode image files into the pixels that a model takes."""
