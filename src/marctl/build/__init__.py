"""Build archives from models' files."""
