"""Programs for other servers, written as their documentation advises, each for its own environment."""
