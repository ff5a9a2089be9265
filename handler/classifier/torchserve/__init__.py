"""The parts that are specific to TorchServe: its context, its socket, its metrics."""
