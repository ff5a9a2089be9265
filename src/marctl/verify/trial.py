"""Run an unpacked archive on images and print its outputs. Runs in the sandbox, with the archive's code.

The images come without names or answers, and the files without their records, so nothing here knows what the
outputs should be. The process that started this one compares them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

Outputs = list[list[float]]


def main() -> int:
    """Answer the images of one request."""
    folder, patches = sys.argv[1:]
    # Whatever the archive prints must not mix with the answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = json.loads(sys.stdin.buffer.readline())
    images = [sys.stdin.buffer.read(size) for size in request["images"]]
    sys.path.insert(0, folder)
    sys.path.append(patches)
    try:
        told: dict[str, Any] = _answered(_loaded(folder, request), images)
    except Exception as error:  # noqa: BLE001 the archive's own code runs here
        # If the handler cannot be imported, TorchServe looks for one of its own and complains that it has
        # none of that name; the first error is the useful one.
        first = error.__context__ if isinstance(error, ImportError) and error.__context__ else error
        told = {"error": f"{type(first).__name__}: {first}"}
    with answers:
        json.dump(told, answers)
    return 0


def _loaded(folder: str, request: dict[str, Any]) -> Any:
    # Imported only now: the archive's folder comes first on the import path.
    importlib.import_module("late_torch").install()  # as in a worker: torch need not be installed
    from ts.model_loader import TsModelLoader

    service = TsModelLoader().load(request["name"], folder, request["handler"])
    handler = service._entry_point.__self__  # TorchServe keeps only the handler's bound method
    if not hasattr(handler, "classifier"):
        raise RuntimeError(
            "it was built by an earlier version, which this one cannot run; build it again: make archive"
        )
    return handler


def _answered(handler: Any, images: list[bytes]) -> dict[str, Outputs | None]:
    """Return the outputs (N, labels) of the runtime, and of the reference if that is another one."""
    batch = handler.preprocess([{"body": image} for image in images])
    answered = handler.inference(batch)
    reference = _reference(handler.classifier)
    # An ONNX file is its own reference.
    held = None if reference is None else _by_torch(reference)(batch)
    return {"outputs": _plain(answered), "reference": None if held is None else _plain(held)}


def _reference(classifier: Any) -> Any:
    """Return the class with its weights; None if there is none, or no torch that could run it."""
    try:
        return classifier.eager
    except ModuleNotFoundError as error:
        if error.name == "torch":
            return None
        raise


def _by_torch(module: Any) -> Callable[[Any], Any]:
    import torch

    def answer(batch: Any) -> Any:
        images = torch.from_numpy(batch)
        # One by one: some models accept only single images.
        with torch.inference_mode():
            return torch.cat([module(image[None]) for image in images]).numpy()

    return answer


def _plain(outputs: Any) -> Outputs:
    return [[float(value) for value in row] for row in outputs]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
