"""Servers for archives."""
