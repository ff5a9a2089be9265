"""The core: a model folder in, answers out; it knows no server."""
