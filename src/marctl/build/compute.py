"""Compute what an archive needs from its model: golden answers, checked in batches, and the export.

For a class this takes torch; an ONNX file is its own reference.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from classifier import golden
from classifier.classifier import Classifier
from marctl.archive.opened import Opened
from marctl.build.computed import Computed
from marctl.build.exporters import version
from marctl.build.model_check import check_finite, kind_of_outputs
from marctl.build.proving import pixels_of, try_golden_batches
from marctl.errors import UserError
from marctl.export.runtime_member import runtime_member


def computed(raw: Path, images: dict[str, bytes], runtime: str) -> Computed:
    """Open an archive as torch-model-archiver built it, and compute what its model says. Raises UserError."""
    with Opened(raw, own_names=True) as opened:
        classifier = opened.classifier
        answers = golden_answers(classifier, classifier.eager, images)
        made_up = try_golden_batches(classifier, images, answers)
        rows = {name: one["outputs"] for name, one in answers.items()}
        kind = kind_of_outputs(classifier.contract.outputs, rows, made_up)
        contract = replace(classifier.contract, outputs=kind)
        member = runtime_member(runtime, lambda: _class_of(opened), contract)
        size = getattr(classifier.model, "size", None)
    note = f"the model takes only batches of {size}: other batches are split and filled up"
    return Computed(answers, kind, member, version("torch"), () if size is None else (note,))


def _class_of(opened: Opened) -> Any:
    from marctl.export.export import eager_of  # imports torch

    return eager_of(opened)


def golden_answers(classifier: Classifier, model: Any, images: dict[str, bytes]) -> dict[str, Any]:
    """Return label and outputs for each image, from float64 arithmetic if the model allows it.

    In float64 every processor gives the same digits, as far as they are recorded, so the archive's bytes do
    not depend on the machine. Each image is answered alone, so that no other image affects what is recorded.
    Raises UserError if float32 differs from float64 by more than half of the worker's tolerance.
    """
    batch = classifier.preprocess(pixels_of(classifier, images))
    eager = np.concatenate([classifier.inference(one[None]) for one in batch]).astype(np.float64)
    check_finite(dict(zip(images, eager, strict=True)))
    exact = eager if model is None else _in_float64(model, batch, eager)
    difference = float(np.abs(eager - exact).max())
    if not difference <= golden.TOLERANCE / 2:
        raise UserError(
            f"the model's float32 outputs differ from its float64 outputs by {difference:.1e}, more than "
            f"half of a worker's tolerance of {golden.TOLERANCE:.0e}: its answers cannot be verified"
        )
    return {
        name: {"label": label, "outputs": [round(value, 9) for value in row]}
        for name, label, row in zip(images, classifier.postprocess(exact), exact.tolist(), strict=True)
    }


def _in_float64(model: Any, batch: np.ndarray, eager: np.ndarray) -> np.ndarray:
    """Return a module's outputs from float64 arithmetic; those in float32 if it has none."""
    import torch

    if any(True for _ in model.parameters()):
        # A model that creates float32 tensors itself cannot run in float64.
        with torch.inference_mode(), contextlib.suppress(RuntimeError):
            double = copy.deepcopy(model).double()
            rows = [double(torch.from_numpy(one[None]).double()) for one in batch]
            exact: np.ndarray = torch.cat(rows).double().cpu().numpy()
            return exact
    return eager
