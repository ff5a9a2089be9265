"""The core: a model folder in, answers out; it knows no server."""

from __future__ import annotations

from typing import Any

# Imported when one of them is asked for: whoever reads a contract need not import a runtime.
PLACES = {"Classifier": "classifier", "Request": "messages", "Response": "messages"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{PLACES[name]}", __name__), name)
