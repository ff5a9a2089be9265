"""Known vulnerabilities, our own code, and a bill of materials of what is served."""
