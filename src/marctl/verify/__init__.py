"""Check an archive against its own records, and run it in isolation."""
