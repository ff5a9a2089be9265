"""What all exports share: write an archive's model to a file, and check it against the golden answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classifier import golden
from marctl.archive.opened import Opened
from marctl.errors import UserError
from marctl.export.batches import Model, answered, try_batches

# The contract's name in each exported file, which needs nothing else to be run.
CONTRACT = "contract"
BATCH = 2  # of the example; exporters treat a batch size of 1 as a constant

Module = torch.nn.Module
Exporter = Callable[[Module, Any], bytes]


def eager_of(opened: Opened) -> Module:
    """Return the archive's model as an instance of its class. Raises UserError."""
    if not opened.classifier.manifest.get("modelFile"):
        raise UserError(f"{opened.path} has no class to export; build it from one: MODEL=file.py")
    exported: Module = opened.classifier.eager
    return exported


def contract_json(contract: Any) -> str:
    """Return an archive's contract as JSON: color, size, resize, mean, std, labels."""
    return json.dumps(contract.to_dict())


def example_of(contract: Any) -> torch.Tensor:
    """Return an example batch for the exporters, float32 (2, C, H, W)."""
    return torch.zeros(BATCH, *contract.shape)


def example_for_any_batch(model: Module, contract: Any) -> torch.Tensor:
    """Return such an example if the model answers each of its images. Raises UserError.

    The exporters' own errors for a model with a fixed batch size are pages long.
    """
    example = example_of(contract)
    with torch.inference_mode():
        answered(model, example, _fixed)
    return example


def _fixed(what: str) -> UserError:
    return UserError(
        f"the model {what}, but an export takes batches of any size; change the class, or serve the class "
        "itself: make archive RUNTIME=eager"
    )


def export(archive: Path, out: Path, write: Exporter, load: Callable[[Path], Model]) -> None:
    """Write an archive's model to a file, load it again, and check it against the golden answers.

    Raises UserError, and GoldenMismatch if the file's answers differ from the archive's.
    """
    with Opened(archive, own_names=True) as opened:
        classifier = opened.classifier
        eager = eager_of(opened)
        example_for_any_batch(eager, classifier.contract)
        data = write(eager, classifier.contract)
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{out.name}")
        partial.write_bytes(data)
        try:
            model = load(partial)
            known = golden.read(opened.folder)
            pixels = [classifier.read_pixels(one.path.read_bytes()) for one in known]
            images, outputs = classifier.preprocess(pixels), np.array([one.outputs for one in known])
            alone = np.concatenate([model(one[None]) for one in images])
            golden.check(known, lambda _: alone, classifier.contract.labels)
            try_batches(model, classifier.contract, images, outputs, BATCH)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    print(f"wrote {out}, {len(data):,} bytes; it answers {len(known)} golden images like {archive}")
