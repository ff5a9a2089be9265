"""Run untrusted programs in isolation."""
