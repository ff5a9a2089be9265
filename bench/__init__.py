"""Measurements of the archive and of what serves it; they write the tables and charts in docs/."""
