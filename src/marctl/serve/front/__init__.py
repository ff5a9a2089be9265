"""The reverse proxy in front of TorchServe, and the supervisor that keeps both running."""
