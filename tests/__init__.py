"""The tests. Nothing imports them."""
