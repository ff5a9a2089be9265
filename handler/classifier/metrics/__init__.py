"""What happened to batches, counted."""
