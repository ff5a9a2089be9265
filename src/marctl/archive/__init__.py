"""Reading an archive, and deciding whether to trust it."""
