"""From the body of a request to what it asks, and back."""
