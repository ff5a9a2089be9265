"""Running what strangers wrote apart from all else."""
