"""Import torch when something needs it, and not because TorchServe mentions it.

TorchServe's modules import torch in every worker, to ask for its version and for a GPU. That costs each
process half a gigabyte and two seconds of a processor, also where ONNX Runtime answers and nothing else of
torch is ever touched. `install()` lets a stand-in answer these questions; whatever else is asked of it
imports torch for real, and all goes on as if that had been done at once.
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
# What ts.torch_handler.base_handler takes from there at its import, for a way of handling not used here.
PROFILER_NAMES = ("ProfilerActivity", "profile", "record_function")
# Where there is an NVIDIA driver torch itself has to be asked.
NVIDIA_DRIVER = Path("/proc/driver/nvidia")


class StandIn(ModuleType):
    """Stands for a module of torch's: what is not set on it is that module's own, imported to answer."""

    def __getattr__(self, name: str) -> Any:
        if (self.__name__, name) == (PROFILER, "__path__"):  # asked of it by each import from it
            raise AttributeError(name)
        load()
        return getattr(sys.modules[self.__name__], name)


class Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module of torch that importing torch itself has just loaded, as it is asked for by name."""

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for what is loaded already; None leaves it to the usual finders."""
        if fullname.startswith(f"{TORCH}.") and fullname in sys.modules:
            return importlib.util.spec_from_loader(fullname, self)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the loaded module."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it ran when torch was imported."""


def install() -> None:
    """Put the stand-in in torch's place, unless torch is imported already or a GPU may be there.

    With another TorchServe than the known one, or left out by UNPATCHED, torch is imported as usual.
    """
    if NAME in os.environ.get("UNPATCHED", "").replace(" ", "").split(",") or not _is_known():
        return
    spec = None if TORCH in sys.modules else importlib.util.find_spec(TORCH)
    if spec is None or NVIDIA_DRIVER.exists():
        return
    profiler = StandIn(PROFILER)
    profiler.__dict__.update(dict.fromkeys(("__file__", *PROFILER_NAMES)))
    torch = StandIn(TORCH)
    torch.__spec__ = spec
    torch.__dict__.update(
        __file__=spec.origin,
        __version__=version(TORCH),
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
    """Import torch in the place of the stand-in; return it."""
    if isinstance(sys.modules.get(TORCH), StandIn):
        stand_ins = [sys.modules.pop(name) for name in (TORCH, PROFILER)]
        for stand_in in stand_ins:
            # Who holds one is answered from the module itself from now on, also for what was set on it.
            stand_in.__dict__.update(vars(importlib.import_module(stand_in.__name__)))
    return sys.modules[TORCH]
