"""Import torch only when something needs it, and do without it where it is not installed.

TorchServe's modules import torch in every worker, to look up its version and a GPU. That costs each process
half a gigabyte and two seconds of CPU time, even if ONNX Runtime computes the answers and torch is not used
otherwise. `install()` puts a stand-in in torch's place that answers these two questions; any other access
imports the real torch, with the same result as an import at the start, or says that it is not installed.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

NAME, KNOWN = "late-torch", "0.12.0"
TORCH, PROFILER = "torch", "torch.profiler"
# Names that ts.torch_handler.base_handler imports from there, for a feature that is not used here.
PROFILER_NAMES = ("ProfilerActivity", "profile", "record_function")
# The version of a torch that is not installed, for those who compare it.
NONE = "0"
# With an NVIDIA driver, only torch itself knows whether there is a usable GPU.
NVIDIA_DRIVER = Path("/proc/driver/nvidia")


class StandIn(ModuleType):
    """Stands in for one of torch's modules: reading an attribute that is not set imports the module."""

    def __getattr__(self, name: str) -> Any:
        if (self.__name__, name) == (PROFILER, "__path__"):  # every import from it looks this up
            raise AttributeError(name)
        load()
        return getattr(sys.modules[self.__name__], name)


class Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a submodule of torch by name after the import of torch itself has loaded it."""

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for a module that is already loaded; None leaves it to the usual finders."""
        if fullname.startswith(f"{TORCH}.") and fullname in sys.modules:
            return importlib.util.spec_from_loader(fullname, self)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the loaded module."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it ran when torch was imported."""


def install() -> None:
    """Install the stand-in, unless torch is already imported or there may be a GPU.

    With another version of TorchServe, or if UNPATCHED names this patch, torch is imported as usual.
    """
    if NAME in os.environ.get("UNPATCHED", "").replace(" ", "").split(",") or not _is_known():
        return
    spec = None if TORCH in sys.modules else importlib.util.find_spec(TORCH)
    if TORCH in sys.modules or (spec is not None and NVIDIA_DRIVER.exists()):
        return
    profiler = StandIn(PROFILER)
    profiler.__dict__.update(dict.fromkeys(("__file__", *PROFILER_NAMES)))
    torch = StandIn(TORCH)
    if spec is None:
        # TorchServe compares the type of some answers with it.
        torch.__dict__["Tensor"] = type("Tensor", (), {})
    torch.__spec__ = spec or importlib.machinery.ModuleSpec(TORCH, None)
    torch.__dict__.update(
        __file__=None if spec is None else spec.origin,
        __version__=NONE if spec is None else version(TORCH),
        cuda=SimpleNamespace(is_available=lambda: False),
        profiler=profiler,
    )
    sys.modules.update({TORCH: torch, PROFILER: profiler})
    sys.meta_path.insert(0, Submodules())


def _is_known() -> bool:
    try:
        return version("torchserve") == KNOWN
    except PackageNotFoundError:
        return False


def load() -> ModuleType:
    """Replace the stand-in by the real torch; return it. Raises ModuleNotFoundError if there is none."""
    stand_in = sys.modules.get(TORCH)
    if isinstance(stand_in, StandIn) and stand_in.__spec__ is not None and stand_in.__spec__.loader is None:
        raise ModuleNotFoundError("this needs torch, which is not installed", name=TORCH)
    if isinstance(sys.modules.get(TORCH), StandIn):
        stand_ins = [sys.modules.pop(name) for name in (TORCH, PROFILER)]
        for stand_in in stand_ins:
            # References to a stand-in see the module's own attributes from now on, even those set before.
            stand_in.__dict__.update(vars(importlib.import_module(stand_in.__name__)))
    return sys.modules[TORCH]
