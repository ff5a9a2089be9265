"""Read an archive, and decide whether to trust it."""
