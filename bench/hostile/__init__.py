"""Hostile input: damaged images and malformed requests, and what has to come back."""
