"""Which pixels made the model answer as it did: integrated gradients, by captum, where that is asked for.

What an output changes by between a black image and the one that was sent is shared out among the pixels:
Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, 2017.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from .answers import as_json, grey_levels, predictions
from .contract import Contract
from .errors import NotOffered
from .messages import AnswerForm, Response, Seen

METHOD = "integrated gradients"
PACKAGE = "captum"
# The variable that opens them, and how: one request takes a worker half a gigabyte (docs/answers.md).
SWITCH, ON = "EXPLAIN", "1"
REMEDY = "start the server by make serve EXPLAIN=1, or send the image to /predictions"
# A black image: paper without ink, on which a digit is nothing but what was added. Grey would have the
# model see a square that no image has.
BASELINE = "black"
# Places between the two images where the gradient is taken. The pixels' shares then add up to what the
# output changes by, but for what docs/answers.md has, at 16 to 512 steps.
STEPS = 128
# Of these so many at once: an image of 224 x 224 in a large network takes megabytes for each.
AT_ONCE = 16


class Explanation(NamedTuple):
    """Each value's share, float32 (C, H, W), and the target's output for the image and for black."""

    shares: np.ndarray
    output: float
    baseline_output: float


def check_offered() -> None:
    """Raise NotOffered unless explanations were switched on and captum, which is not imported, is there."""
    if os.environ.get(SWITCH) != ON:
        raise NotOffered("this server gives no explanations", REMEDY)
    if find_spec(PACKAGE) is None:
        raise NotOffered(f"explanations need {PACKAGE}, which is not installed here", REMEDY)


def explained(
    seen: Seen,
    form: AnswerForm,
    contract: Contract,
    named: Mapping[str, Any],
    reference: Callable[[], tuple[Any, str]],
) -> Response:
    """Return the answer to one image and each pixel's share in it, or in the label that is asked about.

    `reference` returns the eager model and its device; it is called first here, because it takes torch.
    Raises NotOffered where that model has no gradients.
    """
    [told] = predictions(seen, contract.labels, AnswerForm(show_input=True))
    target = told["index"] if form.target is None else form.target
    model, device = reference()
    if model is None:
        raise NotOffered("this model is an ONNX file without gradients", "send the image to /predictions")
    [pixels] = seen.rows
    black = np.zeros_like(pixels)
    found = explain(model, device, contract.normalize(pixels), contract.normalize(black), target)
    # (H, W, C), as the pixels are.
    shares = np.moveaxis(found.shares, 0, -1)
    attributions = np.vectorize(_short, otypes=[float])(shares)
    return as_json(
        {
            **{key: told[key] for key in ("label", "index", "probability")},
            "method": METHOD,
            "target": contract.labels[target],
            "steps": STEPS,
            "baseline": BASELINE,
            "output": found.output,
            "baseline_output": found.baseline_output,
            "input": told["input"],
            "attributions": grey_levels(attributions),
            "model": named,
        }
    )


def explain(model: Any, device: Any, scaled: np.ndarray, black: np.ndarray, target: int) -> Explanation:
    """Share out one output of an eager model among the values of an image.

    `scaled` and `black` are images as the model takes them, float32 (C, H, W).
    """
    # torch first: captum imports parts of it.
    import torch
    from captum.attr import IntegratedGradients

    images = [torch.from_numpy(np.ascontiguousarray(one))[None].to(device) for one in (scaled, black)]
    shares = IntegratedGradients(model).attribute(
        *images, target=target, n_steps=STEPS, internal_batch_size=AT_ONCE
    )
    with torch.inference_mode():
        output, baseline_output = model(torch.cat(images))[:, target].tolist()
    return Explanation(shares[0].float().cpu().numpy(), output, baseline_output)


def _short(share: float) -> float:
    """Return a share without the digits that float32 does not have."""
    return float(f"{share:.6g}")
