"""The reverse proxy before TorchServe, and the supervisor that keeps both up."""
