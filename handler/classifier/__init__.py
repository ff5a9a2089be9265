"""The core: it opens a model folder and answers requests, and depends on no server."""
