"""Hostile input: damaged images and malformed requests, and the required answers."""
