"""Write the model's outputs in the form that a client asked for: a label as text, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import JSON, BadRequest, Reason
from .messages import TEXT, AnswerForm, Response, Seen

# Bytes. TorchServe ends a worker whose answer exceeds max_response_size; config.properties sets it to this.
MOST_BYTES = 2**22
DIGITS = 6  # of a probability, after the point: float32 sums in another order differ in the seventh
Model = Mapping[str, Any]


def labels_as_text(seen: Seen, labels: Sequence[str]) -> Response:
    """Return the label of each image, one per line."""
    return Response("\n".join(labels[index] for index in seen.outputs.argmax(axis=1).tolist()), TEXT)


def one_as_json(seen: Seen, labels: Sequence[str], form: AnswerForm, model: Model) -> Response:
    """Return the answer to one image, and the archive that gave it."""
    [prediction] = predictions(seen, labels, form)
    return as_json({**prediction, "model": model})


def all_as_json(seen: Seen, labels: Sequence[str], form: AnswerForm, model: Model | None) -> Response:
    """Return the answers in the order of the images; without a model, in KServe's form."""
    named = {} if model is None else {"model": model}
    return as_json({"predictions": list(predictions(seen, labels, form)), **named})


def predictions(seen: Seen, labels: Sequence[str], form: AnswerForm) -> Iterator[dict[str, Any]]:
    """Yield the answer to each image."""
    for pixels, outputs, chances in zip(seen.rows, seen.outputs, seen.probabilities(), strict=True):
        prediction = _ranked(int(outputs.argmax()), chances, labels)
        if form.top_k:
            # Largest first, and equal values in the order of the labels, as with argmax.
            order = np.argsort(-outputs, kind="stable")[: form.top_k].tolist()
            prediction["top_k"] = [_ranked(index, chances, labels) for index in order]
        if form.show_input:
            prediction["input"] = grey_levels(pixels)
        yield prediction


def grey_levels(pixels: np.ndarray) -> list[Any]:
    """Return uint8 pixels (H, W, C) as rows of numbers, or of lists of C numbers if C is not 1."""
    rows: list[Any] = (pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).tolist()
    return rows


def as_json(content: Mapping[str, Any]) -> Response:
    """Return an answer as compact JSON."""
    return Response(json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n", JSON)


def checked(response: Response) -> Response:
    """Return a response that TorchServe can send. Raises BadRequest if it is too long."""
    if len(response.body) > MOST_BYTES:  # JSON is ASCII, and labels are a few bytes
        raise BadRequest(
            f"the answer would be {len(response.body):,} bytes, more than {MOST_BYTES:,}",
            "send fewer images per request, or leave show_input out",
            Reason.OPTION,
        )
    return response


def _ranked(index: int, chances: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    return {"label": labels[index], "index": index, "probability": round(float(chances[index]), DIGITS)}
