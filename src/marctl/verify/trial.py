"""Run an unpacked archive on images, and print its outputs. Run by sandbox.py: the archive's code runs here.

It gets images without names or answers, and its files without their records: it is not known here what the
outputs should be. Whoever started this compares them.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

Outputs = list[list[float]]


def main() -> int:
    """Answer the images of one request."""
    folder = sys.argv[1]
    # What the archive prints is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    request = json.loads(sys.stdin.buffer.readline())
    images = [sys.stdin.buffer.read(size) for size in request["images"]]
    sys.path.insert(0, folder)
    try:
        told: dict[str, Any] = _answered(_loaded(folder, request), images)
    except Exception as error:  # noqa: BLE001 the archive's own code runs here
        # Where the handler cannot be imported TorchServe goes on to look for one of its own, and complains
        # that it has none of that name; the first error is the one that helps.
        first = error.__context__ if isinstance(error, ImportError) and error.__context__ else error
        told = {"error": f"{type(first).__name__}: {first}"}
    with answers:
        json.dump(told, answers)
    return 0


def _loaded(folder: str, request: dict[str, Any]) -> Any:
    # Only now: the archive's folder is the first that its imports are looked for in.
    from ts.model_loader import TsModelLoader

    service = TsModelLoader().load(request["name"], folder, request["handler"])
    handler = service._entry_point.__self__  # TorchServe keeps the handler's bound method alone
    if not hasattr(handler, "classifier"):
        raise RuntimeError(
            "an earlier version built it, and this one cannot run it; build it again: make archive"
        )
    return handler


def _answered(handler: Any, images: list[bytes]) -> dict[str, Outputs | None]:
    """Return the outputs (N, labels) of what answers, and of the reference, where that is something else."""
    batch = handler.preprocess([{"body": image} for image in images])
    answered = handler.inference(batch)
    reference = handler.classifier.eager
    # An ONNX file is its own reference.
    held = None if reference is None else _by_torch(reference)(batch)
    return {"outputs": _plain(answered), "reference": None if held is None else _plain(held)}


def _by_torch(module: Any) -> Callable[[Any], Any]:
    import torch

    def answer(batch: Any) -> Any:
        images = torch.from_numpy(batch)
        # One by one: some models take no other batch.
        with torch.inference_mode():
            return torch.cat([module(image[None]) for image in images]).numpy()

    return answer


def _plain(outputs: Any) -> Outputs:
    return [[float(value) for value in row] for row in outputs]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
