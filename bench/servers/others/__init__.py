"""Programs of other servers, written as their documentation advises, each for an environment of its own."""
