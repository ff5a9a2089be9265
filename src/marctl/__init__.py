"""marctl builds, checks, signs, opens, serves, exports and measures model archives."""

__version__ = "0.2.0"
