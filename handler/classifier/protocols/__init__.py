"""Read requests and write responses, in the form of each protocol."""
