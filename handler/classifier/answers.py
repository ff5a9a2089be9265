"""What the model put out, told as clients asked for it: a label as text, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import JSON, BadRequest, Reason
from .messages import TEXT, AnswerForm, Response, Seen

# Bytes; TorchServe ends a worker whose answer is above max_response_size, and config.properties says as much.
MOST_BYTES = 2**22
DIGITS = 6  # behind the point, of a probability: float32 sums in another order differ in the seventh
Model = Mapping[str, Any]


def labels_as_text(seen: Seen, labels: Sequence[str]) -> Response:
    """Return the label of each image, one a line."""
    return Response("\n".join(labels[index] for index in seen.outputs.argmax(axis=1).tolist()), TEXT)


def one_as_json(seen: Seen, labels: Sequence[str], form: AnswerForm, model: Model) -> Response:
    """Return the answer to one image, and which archive gives it."""
    [prediction] = predictions(seen, labels, form)
    return as_json({**prediction, "model": model})


def all_as_json(seen: Seen, labels: Sequence[str], form: AnswerForm, model: Model | None) -> Response:
    """Return the answers in the order of the images; without a model as KServe has it."""
    named = {} if model is None else {"model": model}
    return as_json({"predictions": list(predictions(seen, labels, form)), **named})


def predictions(seen: Seen, labels: Sequence[str], form: AnswerForm) -> Iterator[dict[str, Any]]:
    """Yield what is told of each image."""
    for pixels, outputs, sure in zip(seen.rows, seen.outputs, seen.probabilities(), strict=True):
        told = _ranked(int(outputs.argmax()), sure, labels)
        if form.top_k:
            # The largest first; of equal ones the first, as argmax has it.
            order = np.argsort(-outputs, kind="stable")[: form.top_k].tolist()
            told["top_k"] = [_ranked(index, sure, labels) for index in order]
        if form.show_input:
            told["input"] = grey_levels(pixels)
        yield told


def grey_levels(pixels: np.ndarray) -> list[Any]:
    """Return uint8 pixels (H, W, C) as rows of numbers, or of lists of C numbers where there are several."""
    rows: list[Any] = (pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).tolist()
    return rows


def as_json(told: Mapping[str, Any]) -> Response:
    """Return an answer in JSON, without a blank that is not needed."""
    return Response(json.dumps(told, separators=(",", ":"), allow_nan=False) + "\n", JSON)


def checked(response: Response) -> Response:
    """Return a response that TorchServe lets out. Raises BadRequest where it is too long."""
    if len(response.body) > MOST_BYTES:  # JSON is ASCII, and labels are a few bytes
        raise BadRequest(
            f"the answer would have {len(response.body):,} bytes, more than {MOST_BYTES:,}",
            "send fewer images a request, or leave show_input out",
            Reason.OPTION,
        )
    return response


def _ranked(index: int, sure: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    return {"label": labels[index], "index": index, "probability": round(float(sure[index]), DIGITS)}
