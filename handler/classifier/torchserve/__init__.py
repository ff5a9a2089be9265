"""What is TorchServe's alone: its context, its socket, its metrics."""
