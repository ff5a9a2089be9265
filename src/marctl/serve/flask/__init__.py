"""The archive behind Flask and gunicorn."""
