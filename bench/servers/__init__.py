"""The servers that are measured, their processes, and the programs around them."""
