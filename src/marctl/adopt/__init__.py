"""Convert an archive that was not built here into a model folder."""
