"""The runtimes that compute a model's outputs."""
