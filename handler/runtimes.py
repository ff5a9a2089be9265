"""Load a model in whatever form an archive holds it, and call each of them as a module is called."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

SAFETENSORS = ".safetensors"
PROCESSOR = "processor"  # the entry of a compiled model's metadata that names what it was compiled for


class NotInstalled(RuntimeError):
    """A model that needs a package which is not here."""


class WrongProcessor(RuntimeError):
    """A model compiled for a processor that can do what this one cannot."""


def load_safetensors(model: torch.nn.Module, path: str) -> torch.nn.Module:
    """Fill a model from a safetensors file: tensors alone, nothing in it can run."""
    # Only where an archive has such weights.
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path))
    return model


def as_module(model: Any) -> Any:
    """Return something that maps a tensor to a tensor: ONNX Runtime's sessions do not, by themselves."""
    return OnnxModule(model) if hasattr(model, "get_inputs") else model


class OnnxModule(torch.nn.Module):
    """An ONNX Runtime session of one input and one output, called as a module is."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.input = session.get_inputs()[0].name

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the session's first output for a float32 batch (N, C, H, W)."""
        return torch.from_numpy(self.session.run(None, {self.input: batch.cpu().numpy()})[0])


class CompiledModule(torch.nn.Module):
    """A package of AOTInductor's for the CPU, called as a module is."""

    def __init__(self, package: Any) -> None:
        super().__init__()
        self.package = package

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the model's output for a float32 batch (N, C, H, W)."""
        output: torch.Tensor = self.package(batch.cpu())
        return output


@contextlib.contextmanager
def deprecated_torchscript() -> Iterator[None]:
    """Silence what torch says at each call of torch.jit, and nothing else: here it is used on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
        yield


def load_torchscript(path: Path) -> torch.nn.Module:
    """Return the TorchScript module of a .pt file."""
    with deprecated_torchscript():
        module: torch.nn.Module = torch.jit.load(str(path), map_location="cpu")
    return module.eval()


def load_onnx(path: Path) -> torch.nn.Module:
    """Return the model of an ONNX file, run by ONNX Runtime on as many threads as torch would.

    Raises NotInstalled.
    """
    try:
        # Only where an archive has such a model: the import alone costs every worker time and memory.
        import onnxruntime
    except ImportError as error:
        raise NotInstalled(
            "it answers by ONNX Runtime, which is not installed here; add onnxruntime to requirements/own.txt"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    return OnnxModule(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))


def load_compiled(path: Path) -> torch.nn.Module:
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


# The members of an archive that hold its model in another form, and what loads each. A worker answers
# by such a form where there is one; class and weights stay beside it.
EXPORTED: dict[str, Callable[[Path], torch.nn.Module]] = {
    "runtime.pt": load_torchscript,
    "runtime.onnx": load_onnx,
    "runtime.pt2": load_compiled,
}


def load_exported(folder: Path) -> torch.nn.Module | None:
    """Return the model of an unpacked archive in the form it was exported to; None where it has none."""
    for name, load in EXPORTED.items():
        if (folder / name).exists():
            return load(folder / name)
    return None
