"""Markdown tables, and the pages and charts made of what was measured."""
