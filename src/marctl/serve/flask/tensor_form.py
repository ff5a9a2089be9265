"""The article's request: an image that the client has preprocessed, and its dims."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from classifier.errors import BadRequest

DATA, METADATA, DIMS = "data", "metadata", "dims"
FLOAT32 = np.dtype("<f4")  # little-endian, as numpy's tobytes writes it on common machines
SHOWN = 60  # characters of a bad value in an error


class BadTensor(BadRequest):
    """A form without a valid tensor for the model."""


def tensor_of(form: Mapping[str, bytes], shape: tuple[int, int, int]) -> np.ndarray:
    """Return the form's image as a float32 batch (1, C, H, W), where shape is (C, H, W).

    `data` is its bytes in C order, `metadata` is JSON with its `dims`. Raises BadTensor.
    """
    for part in (DATA, METADATA):
        if part not in form:
            raise BadTensor(f"the form has no part {part!r}, it has {_names(form)}", _remedy(shape))
    _check_dims(form[METADATA], shape)
    data = form[DATA]
    expected = int(np.prod(shape)) * FLOAT32.itemsize
    if len(data) != expected:
        raise BadTensor(
            f"a float32 image of {list(shape)} is {expected} bytes, got {len(data)}",
            "send numpy's tobytes() of that shape in float32",
        )
    tensor = np.frombuffer(data, FLOAT32).reshape(1, *shape).astype(np.float32)
    if odd := int((~np.isfinite(tensor)).sum()):
        found = f"{odd} of the {tensor.size} values are NaN or infinite"
        raise BadTensor(found, "send finite float32 values")
    return tensor


def _check_dims(metadata: bytes, shape: tuple[int, int, int]) -> None:
    """Raise BadTensor if the metadata has another shape than (C, H, W) or (1, C, H, W)."""
    try:
        parsed = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise BadTensor(f"{METADATA!r} is not JSON ({error})", f"send {_example(shape)}") from error
    if not isinstance(parsed, dict) or DIMS not in parsed:
        raise BadTensor(f"{METADATA!r} is {_shown(parsed)}, without {DIMS}", f"send {_example(shape)}")
    dims = parsed[DIMS]
    # Not "==" alone: true equals 1, and 28.0 equals 28.
    if not isinstance(dims, list) or not all(type(size) is int for size in dims):
        raise BadTensor(f"{DIMS} is {_shown(dims)}, not a list of integers", f"send {_example(shape)}")
    if tuple(dims) not in (shape, (1, *shape)):
        takes = f"but the model takes {list(shape)}"
        raise BadTensor(f"{DIMS} is {_shown(dims)}, {takes}", "send an image of that shape")


def _names(form: Mapping[str, bytes]) -> str:
    return ", ".join(sorted(map(_shown, form))) or "none"


def _remedy(shape: tuple[int, int, int]) -> str:
    return f"send multipart/form-data: float32 bytes as {DATA!r}, {_example(shape)} as {METADATA!r}"


def _example(shape: tuple[int, int, int]) -> str:
    return json.dumps({DIMS: list(shape)})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
