"""Tests against real servers and programs."""
