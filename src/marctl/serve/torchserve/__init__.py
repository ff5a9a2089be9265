"""One TorchServe: its settings, its processes, its readiness."""
