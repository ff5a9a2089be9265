"""Count what happens to batches."""
