"""Which pixels led to the model's answer: integrated gradients, computed by captum, on request.

The difference between an output for a black image and for the one sent is divided among the pixels:
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
# What switches explanations on: one request takes half a gigabyte of a worker's memory (docs/answers.md).
SWITCH, ON = "EXPLAIN", "1"
REMEDY = "start the server with make serve EXPLAIN=1, or send the image to /predictions"
# A black image: an empty background, to which a digit is only added. With grey, the model would see a square
# that no image has.
BASELINE = "black"
# Points between the two images at which the gradient is taken. The pixels' shares then add up to the change
# of the output, except for the error that docs/answers.md gives for 16 to 512 steps.
STEPS = 128
# How many of them are computed at once: each takes megabytes for a 224 x 224 image in a large network.
AT_ONCE = 16


class Explanation(NamedTuple):
    """Each value's share, float32 (C, H, W), and the target's output for the image and for black."""

    shares: np.ndarray
    output: float
    baseline_output: float


def check_offered() -> None:
    """Raise NotOffered unless explanations are on and captum is installed; captum is not imported."""
    if os.environ.get(SWITCH) != ON:
        raise NotOffered("explanations are off on this server", REMEDY)
    if find_spec(PACKAGE) is None:
        raise NotOffered(f"explanations need {PACKAGE}, which is not installed", REMEDY)


def explained(
    seen: Seen,
    form: AnswerForm,
    contract: Contract,
    named: Mapping[str, Any],
    reference: Callable[[], tuple[Any, str]],
) -> Response:
    """Return the answer to one image and each pixel's share in it, or in the label that was asked about.

    `reference` returns the eager model and its device; it is called only here, because it imports torch.
    Raises NotOffered if that model has no gradients.
    """
    [answer] = predictions(seen, contract.labels, AnswerForm(show_input=True))
    target = answer["index"] if form.target is None else form.target
    model, device = reference()
    if model is None:
        raise NotOffered("this model is an ONNX file without gradients", "send the image to /predictions")
    [pixels] = seen.rows
    black = np.zeros_like(pixels)
    explanation = explain(model, device, contract.normalize(pixels), contract.normalize(black), target)
    # (H, W, C), like the pixels.
    shares = np.moveaxis(explanation.shares, 0, -1)
    attributions = np.vectorize(_short, otypes=[float])(shares)
    return as_json(
        {
            **{key: answer[key] for key in ("label", "index", "probability")},
            "method": METHOD,
            "target": contract.labels[target],
            "steps": STEPS,
            "baseline": BASELINE,
            "output": explanation.output,
            "baseline_output": explanation.baseline_output,
            "input": answer["input"],
            "attributions": grey_levels(attributions),
            "model": named,
        }
    )


def explain(model: Any, device: Any, scaled: np.ndarray, black: np.ndarray, target: int) -> Explanation:
    """Divide one output of an eager model among the values of an image.

    `scaled` and `black` are normalized images, float32 (C, H, W).
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
    """Return a share without digits beyond the precision of float32."""
    return float(f"{share:.6g}")
