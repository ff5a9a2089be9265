"""Parse what strangers wrote: Python, YAML, pickles. Run by sandbox.py, for it may take any time and memory.

Nothing of the archive is run. The answer, JSON, tells of each file what verify.py asked for.
"""

from __future__ import annotations

import ast
import json
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

# Files that torch or pickle would be asked to load, by name; and how such files begin, whatever their name.
PICKLE_NAMES = (".pth", ".pt", ".ptl", ".bin", ".pkl", ".pickle", ".dill", ".ckpt", ".joblib")
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(6))
ZIP, MACHINE_CODE, NUMPY = b"PK\x03\x04", b"\x7fELF", b"\x93NUMPY"
MOST_WORDS, MOST_NUMBERS = 400, 8
READING = (
    yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError,
    RecursionError,
)  # fmt: skip


def main() -> int:
    """Answer one question."""
    folder, question = Path(sys.argv[1]), json.loads(sys.stdin.buffer.read())
    faults: list[str] = []
    classes = {}
    for name in question["python"]:
        try:
            classes[name] = _classes(folder / name)
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            faults.append(f"{name} is no Python: {error}")
    config = None
    try:
        config = _config(folder, question["config"])
    except READING as error:
        faults.append(f"{question['config']} cannot be read: {type(error).__name__}: {error}")
    for name in question["members"]:
        faults += [f"{name} {fault}" for fault in _runs(folder / name, question["programs"].get(name))]
    print(json.dumps({"faults": faults, "classes": classes, "config": config}))
    return 0


def _classes(path: Path) -> list[str]:
    return [node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.ClassDef)]


def _config(folder: Path, name: str) -> dict[str, Any]:
    """Return input and labels of a model-config.yaml, its values as JSON has them."""
    config = yaml.safe_load((folder / name).read_bytes())
    labels = _labels(folder, config["labels"])
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("its labels are no list of texts")
    return {"input": {str(key): _plain(value) for key, value in config["input"].items()}, "labels": labels}


def _plain(value: Any) -> Any:
    """Return a value where it is no more than a few numbers or a text, else None."""
    is_row = isinstance(value, list) and len(value) <= MOST_NUMBERS
    values = value if is_row else [value]
    return value if all(isinstance(one, str | int | float) for one in values) else None


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
    """Tell whether a file is built as TorchScript's are: code and data below one folder."""
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
    """Yield why a file that torch would load could run what the archive does not name as a program."""
    with path.open("rb") as file:
        start = file.read(8)
    is_zip = start.startswith(ZIP) or zipfile.is_zipfile(path)
    if declared == "TorchScript":
        if not _is_torchscript(path):
            yield "would be loaded as TorchScript, and is none"
    elif declared is not None:
        return
    elif is_zip and _is_torchscript(path):
        yield "is TorchScript, which is a program, and the archive does not say that it answers by it"
    elif start.startswith(MACHINE_CODE) or path.name.lower().endswith((".so", ".pt2")):
        yield "is machine code, which is a program, and the archive does not say that it answers by it"
    elif is_zip or path.name.lower().endswith(PICKLE_NAMES) or start.startswith((*PICKLES, NUMPY)):
        try:
            _load(path, start)
        except Exception as error:  # noqa: BLE001 what a hostile pickle makes the loader raise is not foreseeable
            yield f"is not loadable as weights alone, so it could run code: {_reason(error)}"


def _reason(error: Exception) -> str:
    """Return the line that says why; torch's first one advises to load it all the same."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if "WeightsUnpickler error" in line), lines[0]).strip()[:MOST_WORDS]


def _load(path: Path, start: bytes) -> None:
    # Only where an archive has such files.
    if start.startswith(NUMPY):
        import numpy

        numpy.load(path, mmap_mode="r", allow_pickle=False)
    else:
        import torch

        torch.load(path, map_location="cpu", weights_only=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
