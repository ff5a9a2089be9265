"""Models that torch runs: a class with its weights, TorchScript, and what AOTInductor compiled."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contract import BadContract

SAFETENSORS = ".safetensors"
PROCESSOR = "processor"  # the entry of a compiled model's metadata that names what it was compiled for
CPU = torch.device("cpu")


class WrongProcessor(RuntimeError):
    """A model compiled for a processor that can do what this one cannot."""


class CompiledModule(torch.nn.Module):
    """A package of AOTInductor's for the CPU, called as a module is."""

    def __init__(self, package: Any) -> None:
        super().__init__()
        self.package = package

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the model's output for a float32 batch (N, C, H, W)."""
        output: torch.Tensor = self.package(batch.cpu())
        return output


def as_function(module: Any, device: torch.device = CPU) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from a float32 batch (N, C, H, W) to the outputs (N, labels) of a module, float32.

    It raises BadContract where the module returns anything but one tensor of floating-point numbers.
    """

    def answer(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(batch).to(device))
            if not isinstance(outputs, torch.Tensor) or not outputs.is_floating_point():
                raise BadContract(
                    f"the model returns {_described(outputs)}; return one float32 tensor (N, labels), "
                    "with a value per label"
                )
            floats: np.ndarray = outputs.float().cpu().numpy()
        return floats

    return answer


def one_by_one(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function of any batch by a module that takes one picture alone; gradients pass through it."""
    return lambda batch: torch.cat([module(one[None]) for one in batch])


def _described(outputs: Any) -> str:
    match outputs:
        case torch.Tensor():
            return f"a tensor of {str(outputs.dtype).removeprefix('torch.')}"
        case dict():
            return f"a {type(outputs).__name__} of {', '.join(map(str, outputs))}"
        case tuple() | list():
            return f"a {type(outputs).__name__} of {len(outputs)}"
        case _:
            return f"a {type(outputs).__name__}"


def load_safetensors(model: torch.nn.Module, path: str) -> torch.nn.Module:
    """Fill a model from a safetensors file: tensors alone, nothing in it can run."""
    # Only where an archive has such weights.
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path))
    return model


@contextlib.contextmanager
def deprecated_torchscript() -> Iterator[None]:
    """Silence what torch says at each call of torch.jit, and nothing else: here it is used on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
        yield


def torchscript_module(path: Path) -> torch.nn.Module:
    """Return the TorchScript module of a .pt file."""
    with deprecated_torchscript():
        module: torch.nn.Module = torch.jit.load(str(path), map_location="cpu")
    return module.eval()


def compiled_module(path: Path) -> torch.nn.Module:
    """Return the model of a .pt2 package that AOTInductor compiled.

    Raises WrongProcessor where this processor lacks what the compiler relied on: such code does not
    answer wrongly, it ends the process.
    """
    # Read without the code in it, which aoti_load_package would load at once.
    reader: Any = torch._C._aoti.AOTIModelPackageLoader
    metadata = reader.load_metadata_from_package(str(path), "model")
    lacking = set(json.loads(metadata.get(PROCESSOR, "[]"))) - set(processor_features())
    if lacking:
        raise WrongProcessor(
            f"{path.name} was compiled for a processor with {', '.join(sorted(lacking))}, which this one "
            "lacks; build it on this machine, or with another RUNTIME"
        )
    return CompiledModule(torch._inductor.aoti_load_package(str(path)))


def processor_features() -> list[str]:
    """Return what this processor can do beyond its architecture's base, in torch's names: avx2, ..."""
    return sorted(name for name, present in torch.cpu.get_capabilities().items() if present is True)
