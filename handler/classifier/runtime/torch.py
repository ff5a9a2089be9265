"""Models that torch runs: a class with its weights, TorchScript, and AOTInductor packages."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from ..contract import BadContract

SAFETENSORS = ".safetensors"
PROCESSOR = "processor"  # the key in a compiled model's metadata for the features it needs
CPU = torch.device("cpu")
# Keys under which training programs save the state_dict, beside the optimizer, epoch and so on.
CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")
# Prefixes that DataParallel, Lightning and torch.compile put before every name.
WRAPPERS = ("module.", "model.", "_orig_mod.")
# Of BatchNorm; torch fills it in if a state_dict from before version 0.4.1 lacks it.
COUNTER = ".num_batches_tracked"
UNSAFE = re.compile(r"GLOBAL (\S+) was not an allowed global")
TORCHSCRIPT = "TorchScript"  # the word in torch's error, and in ours
NAMED = 3  # how many tensors an error names


class WrongProcessor(RuntimeError):
    """A model compiled for a processor with features that this one lacks."""


class CompiledModule(torch.nn.Module):
    """An AOTInductor package for the CPU, called like a module."""

    def __init__(self, package: Any) -> None:
        super().__init__()
        self.package = package

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the model's output for a float32 batch (N, C, H, W)."""
        output: torch.Tensor = self.package(batch.cpu())
        return output


def as_function(module: Any, device: torch.device | str = CPU) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from a float32 batch (N, C, H, W) to a module's outputs, float32 (N, labels).

    It raises BadContract if the module returns anything but one floating-point tensor.
    """

    def answer(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(batch).to(device))
            if not isinstance(outputs, torch.Tensor) or not outputs.is_floating_point():
                raise BadContract(
                    f"the model returns {_described(outputs)}; return one float32 tensor (N, labels), "
                    "one value per label"
                )
            floats: np.ndarray = outputs.float().cpu().numpy()
        return floats

    return answer


def one_by_one(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function for any batch from a module that takes one image; gradients pass through it."""
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


def load_weights(model: torch.nn.Module, path: Path) -> torch.nn.Module:
    """Load a file of weights, .safetensors or torch.save's, into a model: no code in it is run.

    The state_dict may be in a checkpoint under one of CHECKPOINT_KEYS, and its names may have the prefixes in
    WRAPPERS.

    Raises BadContract if the file has no state_dict, or one that does not fit the model exactly.
    """
    state = _without_prefixes(_state_dict_in(path), model, path.name)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        why = _other_shapes(state, model) or str(error).splitlines()[-1].strip()
        raise _misfit(path.name, model, why) from error
    return model


def unwrapped(loaded: Any) -> Any:
    """Return the state_dict in a training program's checkpoint; anything else unchanged."""
    for _ in CHECKPOINT_KEYS:  # nested, but not forever: a pickle may contain itself
        if not isinstance(loaded, Mapping):
            break
        inner = (loaded[key] for key in CHECKPOINT_KEYS if isinstance(loaded.get(key), Mapping))
        loaded = next(inner, loaded)
    return loaded


def _state_dict_in(path: Path) -> Mapping[str, torch.Tensor]:
    """Return the state_dict of a file. Raises BadContract."""
    save = f"save the weights alone: torch.save(model.state_dict(), {path.name!r})"
    if path.suffix == SAFETENSORS:
        # Imported only for an archive with such weights.
        from safetensors.torch import load_file

        save = f"save it again: safetensors.torch.save_file(model.state_dict(), {path.name!r})"
    try:
        if path.suffix == SAFETENSORS:
            loaded = load_file(path)
        else:
            loaded = unwrapped(torch.load(path, map_location=CPU, weights_only=True))
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        held = UNSAFE.search(str(error))
        objects = (
            f"Python objects ({held[1]}), whose code would run" if held else "data that cannot be unpickled"
        )
        raise BadContract(f"{path.name} holds {objects}; {save}") from error
    except Exception as error:  # for damaged files, torch and safetensors raise many types
        if TORCHSCRIPT in str(error):
            raise BadContract(f"{path.name} holds {TORCHSCRIPT}, which needs no class; {save}") from error
        why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise BadContract(f"{path.name} cannot be read as weights ({why}); {save}") from error
    if not isinstance(loaded, Mapping):
        raise BadContract(f"{path.name} holds a {type(loaded).__name__}, not a state_dict; {save}")
    if loaded and not any(isinstance(one, torch.Tensor) for one in loaded.values()):
        raise BadContract(f"{path.name} holds {_few(map(str, loaded))}, but no state_dict; {save}")
    return loaded


def _without_prefixes(
    state: Mapping[str, torch.Tensor], model: torch.nn.Module, file: str
) -> Mapping[str, torch.Tensor]:
    """Return a state_dict with the model's names: unchanged, or without prefixes that all its names have.

    Raises BadContract if none of these fits.
    """
    named = set(model.state_dict())
    misfits = []
    while True:
        missing = sorted(name for name in named - state.keys() if not name.endswith(COUNTER))
        unexpected = sorted(map(str, state.keys() - named))
        if not missing and not unexpected:
            return state
        misfits.append((missing, unexpected))
        prefix = next((one for one in WRAPPERS if all(str(name).startswith(one) for name in state)), None)
        if prefix is None or not state:
            break
        state = copy.copy(state)  # keeps its modules' versions, which dict() would lose
        consume_prefix_in_state_dict_if_present(state, prefix)  # type: ignore[arg-type]
    nearest = zip(("missing", "unexpected"), min(misfits, key=lambda one: sum(map(len, one))), strict=True)
    raise _misfit(file, model, "; ".join(f"{what} {_few(names)}" for what, names in nearest if names))


def _other_shapes(state: Mapping[str, torch.Tensor], model: torch.nn.Module) -> str:
    wanted = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    return _few(
        f"{name} is {tuple(one.shape)} and not {wanted[name]}"
        for name, one in state.items()
        if name in wanted and tuple(one.shape) != wanted[name]
    )


def _misfit(file: str, model: torch.nn.Module, why: str) -> BadContract:
    return BadContract(
        f"{file} does not fit {type(model).__name__}: {why}; save model.state_dict() of this class, "
        "made with the same arguments"
    )


def _few(names: Iterable[str]) -> str:
    first, rest = (every := list(names))[:NAMED], every[NAMED:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")


@contextlib.contextmanager
def deprecated_torchscript() -> Iterator[None]:
    """Silence torch's warning at each call of torch.jit, and no other: it is used on purpose here."""
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

    Raises WrongProcessor if this processor lacks features that the code needs: running it would crash the
    process, not give wrong answers.
    """
    # Only the metadata is read here; aoti_load_package would load the code at once.
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
    """Return this processor's features beyond its architecture's base, in torch's names: avx2, ..."""
    return sorted(name for name, present in torch.cpu.get_capabilities().items() if present is True)
