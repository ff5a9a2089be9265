"""Parse untrusted Python, YAML and pickles. Run in the sandbox, because this may take any time and memory.

Nothing of the archive is run. The answer is JSON, with the faults, classes and settings that were found.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import pickle
import re
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING as OLD_NAMES  # modules as pickles from Python 2 name them
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

# Suffixes of files that torch or pickle may be asked to load, and how such files begin, whatever their name.
PICKLE_NAMES = (".pth", ".pt", ".ptl", ".bin", ".pkl", ".pickle", ".dill", ".ckpt", ".joblib")
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(6))
ZIP, MACHINE_CODE, NUMPY = b"PK\x03\x04", b"\x7fELF", b"\x93NUMPY"
# What torch 2.14 loads as weights only (torch/_weights_only_unpickler.py), by module.
WEIGHTS_ONLY = {
    "_codecs": {"encode"},
    "builtins": {"bytearray", "complex", "set"},
    "collections": {"Counter", "OrderedDict"},
    "torch": {"Size", "Tensor", "device"},
    "torch._tensor": {"_rebuild_from_type_v2"},
    "torch._utils": {
        "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_device_tensor_from_numpy",
        "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor", "_rebuild_parameter",
        "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_tensor",
        "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_wrapper_subclass",
    },
    "torch.nn.parameter": {"Parameter"},
    "torch.serialization": {"_get_layout"},
    "torch.storage": {"TypedStorage", "UntypedStorage"},
}  # fmt: skip
# Besides these, kinds of numbers, and classes of tensors and storages of a kind.
DTYPES = re.compile(
    r"bool|b?complex\d+|bfloat\d+|float\d+(_\w+)?|bits\d+(x\d+)?|q?u?int\d+(x\d+)?"
    r"|per_(channel|tensor)_(a|sy)\w+"
)
KIND = "BFloat16|Bool|Byte|Char|(Complex)?Double|(Complex)?Float|Half|Int|Long|Short"
CLASSES = re.compile(f"({KIND})(Storage|Tensor)|QU?Int[0-9x]+Storage")
OF_TENSORS = {"torch", "torch.cuda", "torch.sparse", "torch.cuda.sparse"}
MOST_WORDS, MOST_NUMBERS = 400, 8
MOST_WHOLE = 2**63  # bound of an integer in the answer
SAFETENSORS, BYTECODE = ".safetensors", (".pyc", ".pyo")
PROGRAMS = (".so", ".pt2", ".pyd", ".dll", ".dylib")


def main() -> int:
    """Read one request from stdin and print the answer."""
    folder, question = Path(sys.argv[1]), json.loads(sys.stdin.buffer.read())
    faults: list[str] = []
    classes = {}
    for name in question["python"]:
        try:
            classes[name] = _classes(folder / name)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            faults.append(f"{name} is not valid Python: {error}")
    config = named = None
    try:
        config = _config(folder, question["config"])
        named = config.pop("class")
    except Exception as error:  # noqa: BLE001 for a value that does not fit its tag, yaml raises anything
        reason = f"{type(error).__name__}: {str(error)[:MOST_WORDS]}"
        faults.append(f"{question['config']} cannot be read: {reason}")
    for name in question["members"]:
        faults += [f"{name} {fault}" for fault in _runs(folder / name, question["programs"].get(name))]
    print(json.dumps({"faults": faults, "classes": classes, "class": named, "config": config}))
    return 0


def _classes(path: Path) -> list[str]:
    return [node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef)]


def _config(folder: Path, name: str) -> dict[str, Any]:
    """Return input, labels and class of a model-config.yaml, with values that JSON can hold."""
    config = yaml.safe_load((folder / name).read_bytes())
    labels = _labels(folder, config["labels"])
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("its labels are not a list of strings")
    told = {str(key): _plain(value) for key, value in config["input"].items()}
    return {"input": told, "labels": labels, "class": _plain(config.get("class"))}


def _plain(value: Any) -> Any:
    """Return a value if it is a string, a number or a short list of these, else None."""
    is_row = isinstance(value, list) and len(value) <= MOST_NUMBERS
    values = value if is_row else [value]
    return value if all(map(_is_small, values)) else None


def _is_small(value: Any) -> bool:
    return isinstance(value, str | float) or (isinstance(value, int) and abs(value) < MOST_WHOLE)


def _labels(folder: Path, labels: Any) -> list[Any]:
    """Return the labels as TorchServe and the contract read them."""
    if isinstance(labels, list):
        return labels
    told = json.loads((folder / str(labels)).read_bytes())
    if isinstance(told, Mapping) and isinstance(listed := told.get("object_type_names"), list):
        return listed
    values = [told[str(index)] for index in range(len(told))]
    return [value[-1] if isinstance(value, list) else value for value in values]


def _is_torchscript(path: Path) -> bool:
    """Return whether a file is laid out as TorchScript: code and data below one folder."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return False
    folders = {name.partition("/")[0] for name in names}
    return len(folders) == 1 and all(
        any(name.startswith(f"{folder}/{part}") for name in names)
        for folder in folders
        for part in ("code/", "data.pkl", "constants.pkl")
    )


def _runs(path: Path, declared: str | None) -> Iterator[str]:
    """Yield why a file could run code that the archive does not declare as a program."""
    with path.open("rb") as file:
        start = file.read(8)
    is_zip = start.startswith(ZIP) or zipfile.is_zipfile(path)
    if declared == "TorchScript":
        if not _is_torchscript(path):
            yield "would be loaded as TorchScript, but is not TorchScript"
    elif declared is not None:
        return
    elif is_zip and _is_torchscript(path):
        yield "is TorchScript, which is a program, but the archive does not declare it"
    elif path.name.lower().endswith(BYTECODE):
        yield "is compiled Python, a program that nobody can review"
    elif start.startswith(MACHINE_CODE) or path.name.lower().endswith(PROGRAMS):
        yield "is machine code, which is a program, but the archive does not declare it"
    elif path.name.lower().endswith(SAFETENSORS):
        if not _has_header(path):
            yield "has no safetensors header, so it may be anything"
    elif is_zip or path.name.lower().endswith(PICKLE_NAMES) or start.startswith((*PICKLES, NUMPY)):
        try:
            _load(path, start)
        except ModuleNotFoundError as error:
            yield f"cannot be checked without {error.name}; install it: pip install 'marctl[torch]'"
        except Exception as error:  # noqa: BLE001 a hostile pickle can make the loader raise anything
            yield f"cannot be loaded as weights only, so it could run code: {_reason(error)}"
    elif _calls(path):
        yield "is a pickle that calls what it names, so it could run code"


def _has_header(path: Path) -> bool:
    """Return whether a file begins like safetensors: with a length, then a JSON object."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return False
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except (ValueError, RecursionError, MemoryError):
            return False


class _CallsError(Exception):
    """A pickle is about to use something that it names."""


class _Watched(type):
    """Raises _CallsError on any use of the class."""

    def __getattr__(cls, _: str) -> Any:
        raise _CallsError

    def __setitem__(cls, *_: Any) -> None:
        raise _CallsError


class _Named(metaclass=_Watched):
    """Stands for whatever a pickle names."""

    def __new__(cls, *_: Any, **__: Any) -> _Named:
        raise _CallsError


class _Unpickler(pickle.Unpickler):
    """Unpickles numbers and strings; it imports nothing that a pickle names."""

    def __init__(self, file: IO[bytes], folder: Path) -> None:
        super().__init__(file)
        self._folder = folder

    def find_class(self, module: str, _: str) -> type[_Named]:
        """Return the stand-in if an import would find the module; text can look like a pickle by chance."""
        top = module.partition(".")[0]
        if top in (*OLD_NAMES, "__main__") or self._is_member(top) or importlib.util.find_spec(top):
            return _Named
        raise ImportError(top)

    def _is_member(self, top: str) -> bool:
        return bool(top) and any((self._folder / name).exists() for name in (top, f"{top}.py"))


def _calls(path: Path) -> bool:
    """Return whether a file, whatever its name, is a pickle that would call what it names.

    Pickles of protocols 0 and 1 have no magic number. A file may contain several pickles.
    """
    with path.open("rb") as file:
        try:
            while True:
                _Unpickler(file, Path(sys.argv[1])).load()
        except _CallsError:
            return True
        except Exception:  # noqa: BLE001 a file that is not a pickle can make the loader raise anything
            return False


def _reason(error: Exception) -> str:
    """Return the line with the reason; torch's first line advises loading the file anyway."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if "WeightsUnpickler error" in line), lines[0]).strip()[:MOST_WORDS]


def _load(path: Path, start: bytes) -> None:
    # Imported only if an archive has such files.
    if start.startswith(NUMPY):
        import numpy

        numpy.load(path, mmap_mode="r", allow_pickle=False)
        return
    try:
        import torch
    except ModuleNotFoundError:
        if not zipfile.is_zipfile(path):  # torch's format before version 1.6
            raise
        _load_as_tensors(path)
    else:
        torch.load(path, map_location="cpu", weights_only=True)


def is_weights_only(module: str, name: str) -> bool:
    """Return whether torch loads what a pickle names so, without running code of the file."""
    if name in WEIGHTS_ONLY.get(module, ()) or (module == "torch" and DTYPES.fullmatch(name)):
        return True
    return module in OF_TENSORS and CLASSES.fullmatch(name) is not None


class _Inert:
    """Stands for a tensor, a storage or a kind of numbers."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


class _Tensors(pickle.Unpickler):
    """Unpickles what torch.save writes for tensors, without their numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> type:
        """Return what stands for a name, or refuse it."""
        if not is_weights_only(OLD_NAMES.get(module, module), name):
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return OrderedDict if name == "OrderedDict" else _Inert

    def persistent_load(self, _: Any) -> _Inert:
        """Return what stands for a storage."""
        return _Inert()


def _load_as_tensors(path: Path) -> None:
    """Read a file of torch.save's without torch; raise if it names anything but tensors."""
    with zipfile.ZipFile(path) as packed:
        [name] = [name for name in packed.namelist() if name.endswith("/data.pkl")]
        with packed.open(name) as file:
            _Tensors(file).load()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
