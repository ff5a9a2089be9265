"""The reference model: the class with its weights, or the file that replaces them."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ..contract import ARGUMENTS, CLASS, BadContract
from . import ONNX_SUFFIX

COMPILE = "pt2"


def load_eager(
    folder: Path, manifest: Mapping[str, Any], config: Mapping[str, Any], device: str, prefix: str
) -> Any:
    """Return the model that an archive's manifest names, in evaluation mode on a device.

    A class with its weights, or TorchScript, as a torch.nn.Module; None for an ONNX file, which is its own
    reference. A class's modules are in sys.modules under their names with `prefix` in front. Raises
    BadContract.
    """
    weights = folder / str(manifest.get("serializedFile", ""))
    source = manifest.get("modelFile")
    if not source:
        return _without_class(weights, device)
    import torch

    from .torch import load_weights

    with torch.inference_mode(mode=False):  # explanations need gradients, even if the first caller does not
        model = _construct(_class_of(load_source(folder, Path(source).stem, prefix), config), config)
        if not isinstance(model, torch.nn.Module):
            raise BadContract(
                f"{type(model).__name__} in {source} is not a torch.nn.Module; derive it from that class"
            )
        model = load_weights(model, weights).to(device).eval()
    options = dict((config.get(COMPILE) or {}).get("compile") or {})
    if options.pop("enable", False):
        return torch.compile(model, **options)
    return model


def load_source(folder: Path, stem: str, prefix: str) -> ModuleType:
    """Return a module of the archive, registered under its name with a prefix.

    Its imports of neighbours in the folder, absolute ones too, are resolved there and nowhere else: two
    archives in one process may have neighbours of the same name.
    """
    name = f"{prefix}{stem}"
    if name in sys.modules and _is_at(sys.modules[name], folder / f"{stem}.py"):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, folder / f"{stem}.py")
    if spec is None or spec.loader is None:
        raise BadContract(f"{stem}.py cannot be imported; it must be a Python file")
    module = importlib.util.module_from_spec(spec)
    own = dict(vars(builtins))
    own["__import__"] = partial(_import, folder, prefix)
    module.__dict__["__builtins__"] = own
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(  # noqa: PLR0913, PLR0917 the signature of __import__, after two more arguments
    folder: Path,
    prefix: str,
    name: str,
    of: Mapping[str, object] | None = None,
    local: Mapping[str, object] | None = None,
    names: tuple[str, ...] | None = (),
    level: int = 0,
) -> ModuleType:
    """Import as Python does, but take neighbours from the folder."""
    if level <= 1 and "." not in name:
        if name and (folder / f"{name}.py").is_file():
            return load_source(folder, name, prefix)
        if level == 1 and not name:  # from . import neighbour
            package = ModuleType(prefix)
            for neighbour in names or ():
                setattr(package, neighbour, load_source(folder, neighbour, prefix))
            return package
    return builtins.__import__(name, of, local, names or (), level)


def _is_at(module: ModuleType, path: Path) -> bool:
    return getattr(module, "__file__", None) == str(path)


def _class_of(module: ModuleType, config: Mapping[str, Any]) -> type:
    """Return the model's class: the one that the contract names, or the only one in the file."""
    own = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    file = Path(str(module.__file__)).name
    named = config.get(CLASS)
    if named is not None:
        if not isinstance(named, str) or named not in own:
            raise BadContract(f"class is {named!r}, but {file} defines {', '.join(own) or 'none'}; name one")
        return own[named]
    if len(own) != 1:
        raise BadContract(
            f"{file} defines {', '.join(own) or 'no class'}; it needs one class, or class: NAME in "
            "model-config.yaml to select the model"
        )
    return next(iter(own.values()))


def _construct(model: type, config: Mapping[str, Any]) -> Any:
    arguments = config.get(ARGUMENTS) or {}
    if not isinstance(arguments, dict) or not all(isinstance(name, str) for name in arguments):
        raise BadContract(f"arguments is {arguments!r}; write names and values, such as depth: 18")
    try:
        return model(**arguments)
    except TypeError as error:
        raise BadContract(
            f"{model.__name__} cannot be constructed with the arguments {', '.join(arguments) or 'none'} "
            f"({error}); write them in model-config.yaml as arguments: {{name: value}}"
        ) from error


def _without_class(weights: Path, device: str) -> Any:
    if weights.suffix == ONNX_SUFFIX:
        return None
    if weights.suffix == ".pt":
        from .torch import torchscript_module

        return torchscript_module(weights).to(device)
    raise BadContract(
        f"the weights {weights.name} need a class; name it: make archive MODEL=file.py, or use a TorchScript "
        "(.pt) or ONNX (.onnx) file"
    )
