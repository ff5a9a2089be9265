"""The packages that export a class, and their versions: an export depends on them."""

from __future__ import annotations

from importlib import metadata

EXPORTERS = ("torch", "onnx", "onnxscript")


def version(package: str) -> str:
    """Return the version that exports here: the installed one, else the one that marctl's extras pin.

    Without the suffix of torch's CPU and CUDA builds, which export the same.
    """
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        pins = (pin.partition(";")[0].strip() for pin in metadata.requires("marctl") or ())
        return next((pin.partition("==")[2] for pin in pins if pin.startswith(f"{package}==")), "")
