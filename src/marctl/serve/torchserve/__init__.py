"""One TorchServe: its settings, its processes, when it is ready."""
