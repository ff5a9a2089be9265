"""From a model's files to an archive."""
