"""What the model put out, told as clients asked for it: a label as text, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np

from answer_form import AnswerForm
from question import Reply, Seen
from reason import Reason
from refusal import JSON, Refusal

TEXT = "text/plain; charset=utf-8"
# Bytes; TorchServe ends a worker whose answer is above max_response_size, and config.properties says as much.
MOST_BYTES = 2**22
DIGITS = 6  # behind the point, of a probability: float32 sums in another order differ in the seventh
Model = Mapping[str, Any]


def labels_as_text(seen: Seen, labels: Sequence[str]) -> Reply:
    """Return the label of each picture, one a line."""
    return Reply("\n".join(labels[index] for index in seen.outputs.argmax(axis=1).tolist()), TEXT)


def one_as_json(seen: Seen, labels: Sequence[str], form: AnswerForm, model: Model) -> Reply:
    """Return the answer to one picture, and which archive gives it."""
    [prediction] = predictions(seen, labels, form)
    return as_json({**prediction, "model": model})


def all_as_json(seen: Seen, labels: Sequence[str], form: AnswerForm, model: Model | None) -> Reply:
    """Return the answers in the order of the pictures; without a model as KServe has it."""
    named = {} if model is None else {"model": model}
    return as_json({"predictions": list(predictions(seen, labels, form)), **named})


def predictions(seen: Seen, labels: Sequence[str], form: AnswerForm) -> Iterator[dict[str, Any]]:
    """Yield what is told of each picture."""
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


def as_json(told: Mapping[str, Any]) -> Reply:
    """Return an answer in JSON, without a blank that is not needed."""
    return Reply(json.dumps(told, separators=(",", ":"), allow_nan=False) + "\n", JSON)


def checked(reply: Reply) -> Reply:
    """Return a reply that TorchServe lets out. Raises Refusal where it is too long."""
    if len(reply.body) > MOST_BYTES:  # JSON is ASCII, and labels are a few bytes
        raise Refusal(
            f"the answer would have {len(reply.body):,} bytes, more than {MOST_BYTES:,}",
            "send fewer pictures a request, or leave show_input out",
            Reason.OPTION,
        )
    return reply


def of_fault() -> tuple[HTTPStatus, str, str]:
    """Return what a client is told where we are at fault."""
    return (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "this request met a fault of the server",
        "send it again later; the server's log has the details",
    )


def _ranked(index: int, sure: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    return {"label": labels[index], "index": index, "probability": round(float(sure[index]), DIGITS)}
