"""Taking over an archive that was not built here."""
