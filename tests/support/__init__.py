"""What several test modules share; fixtures lie in tests/conftest.py."""
