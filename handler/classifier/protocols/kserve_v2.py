"""KServe's V2 protocol, which is the Open Inference Protocol: tensors in, tensors out, in JSON or as bytes.

Triton's binary data extension, which its clients speak unasked, puts tensors as bytes behind the JSON; a
header says where. https://github.com/kserve/open-inference-protocol has the protocol.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..answers import DIGITS
from ..errors import JSON, BadRequest
from ..headers import PROTOCOL, V2
from ..messages import Request, Response, Seen
from .body import MOST_IMAGES, is_json, too_many
from .json_body import bad_json, shown
from .kserve_v1 import INSTANCES, decoded

INPUTS, OUTPUTS = "inputs", "outputs"
# The header that says how many bytes of the body are JSON; tensors follow, as bytes.
JSON_LENGTH = "inference-header-content-length"
BYTES, FP32, INT64 = "BYTES", "FP32", "INT64"
OCTETS = "application/octet-stream"
FLOAT32 = np.dtype("<f4")
LABEL, INDEX, PROBABILITY, PROBABILITIES = "label", "index", "probability", "probabilities"
ANSWERS = (LABEL, INDEX, PROBABILITY, PROBABILITIES)
# As they stand in a body: the key of this protocol, and the one of V1.
_KEY, _OTHER_KEY = f'"{INPUTS}"'.encode(), f'"{INSTANCES}"'.encode()
# Scaled grey levels are a few units; sums of a million of these are still finite in float32.
LARGEST = 1e6
# What a shape may have: more sizes and larger ones no tensor here has.
MOST_SIZES, MOST_ELEMENTS = 8, 2**26
# In the place of a size: as many as the data has.
BY_DATA = -1


class Wish(NamedTuple):
    """A tensor of the answer, and whether as bytes."""

    name: str
    binary: bool


class Inference(NamedTuple):
    """A request: image files, or float32 (N, C, H, W); and what is wanted of the answer."""

    images: list[bytes]
    tensors: np.ndarray | None
    id: str | None
    wishes: list[Wish]


def speaks_v2(request: Request) -> bool:
    """Return whether a request is one of the V2 protocol, even if its JSON cannot be parsed.

    The address decides where the adapter knows it, else the body and Triton's header.
    """
    if (told := request.headers.get(PROTOCOL)) is not None:
        return told == V2
    if JSON_LENGTH in request.headers:
        return True
    body = request.body
    if request.fields is not None and len(request.fields) == 1:
        [body] = request.fields.values()
    return is_json(body) and _KEY in body and _OTHER_KEY not in body


def json_part(body: bytes, headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Return the JSON of a body, and the bytes behind it. Raises BadRequest."""
    said = headers.get(JSON_LENGTH)
    if said is None:
        return body, b""
    if not (said.isascii() and said.isdigit() and len(said) < 12 and int(said) <= len(body)):  # noqa: PLR2004
        raise bad_json(
            f"{JSON_LENGTH} is {shown(said)}, the body has {len(body)} bytes",
            "send how many of them are JSON, or all in JSON, without that header",
        )
    return body[: int(said)], body[int(said) :]


def read(told: Mapping[str, Any], behind: bytes, shape: tuple[int, int, int]) -> Inference:
    """Return what JSON and the bytes behind it ask; shape is the model's (C, H, W). Raises BadRequest."""
    name = told.get("id")
    if name is not None and not isinstance(name, str):
        raise bad_json(f"id is {shown(name)}, no text", "send it in quotes, or leave it out")
    tensor = _only_input(told, shape)
    sizes = _sizes(tensor)
    data = _data(tensor, behind)
    if tensor.get("datatype") == BYTES:
        return Inference(_images(data, sizes), None, name, _wishes(told))
    return Inference([], _tensors(data, sizes, shape), name, _wishes(told))


def answer(inference: Inference, seen: Seen, labels: Sequence[str], model: Mapping[str, Any]) -> Response:
    """Return the wanted tensors of what the model put out."""
    chances = seen.probabilities()
    columns = seen.outputs.argmax(axis=1)
    tensors = {
        LABEL: (BYTES, [labels[column] for column in columns]),
        INDEX: (INT64, columns.astype("<i8")),
        PROBABILITY: (FP32, chances[np.arange(len(columns)), columns]),
        PROBABILITIES: (FP32, chances),
    }
    described, behind = [], []
    for wish in inference.wishes:
        kind, values = tensors[wish.name]
        one: dict[str, Any] = {"name": wish.name, "datatype": kind, "shape": list(np.shape(values))}
        if wish.binary:
            behind.append(_as_bytes(kind, values))
            one["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            one["data"] = _as_json(values)
        described.append(one)
    head = {"model_name": model["name"], "model_version": model["version"]}
    head |= {} if inference.id is None else {"id": inference.id}
    text = json.dumps({**head, OUTPUTS: described}, separators=(",", ":"))
    if not behind:
        return Response(text + "\n", JSON)
    return Response(text.encode() + b"".join(behind), OCTETS, ((JSON_LENGTH, str(len(text))),))


def _only_input(told: Mapping[str, Any], shape: tuple[int, int, int]) -> Mapping[str, Any]:
    match told.get(INPUTS):
        case [{"datatype": str() as kind} as tensor] if kind in (BYTES, FP32):
            return dict(tensor)
        case [{"datatype": kind}]:
            raise bad_json(f"the input's datatype is {shown(kind)}", _remedy(shape))
        case [*several] if len(several) > 1:
            raise bad_json(f"there are {len(several):,} inputs", f"the model has one: {_remedy(shape)}")
        case other:
            raise bad_json(f"inputs is {shown(other)}, without a tensor", _remedy(shape))


def _sizes(tensor: Mapping[str, Any]) -> list[int]:
    sizes = tensor.get("shape")
    if not isinstance(sizes, list) or not 0 < len(sizes) <= MOST_SIZES or not all(map(_is_size, sizes)):
        raise bad_json(f"the input's shape is {shown(sizes)}",
                       "send a list of whole numbers, the first of them that of the images")  # fmt: skip
    if sizes.count(BY_DATA) > 1:
        raise bad_json(f"the input's shape {sizes} leaves {sizes.count(BY_DATA)} sizes open",
                       f"send {BY_DATA} for one of them at most")  # fmt: skip
    _check_count(sizes, sizes)
    return sizes


def _check_count(came: list[int], sizes: list[int]) -> None:
    """Raise BadRequest where sizes, which may stand for those that came, are of no image or of too many."""
    if not prod(sizes):
        raise bad_json(f"the input's shape {came} holds no image", "send at least one")
    if sizes[0] > MOST_IMAGES:
        raise too_many("the input's shape has", sizes[0])


def _is_size(size: Any) -> bool:
    # Not "isinstance": true is an int, too.
    return type(size) is int and BY_DATA <= size <= MOST_ELEMENTS


def _filled(sizes: list[int], found: int) -> list[int]:
    """Return a shape whose open size is told from the number of elements found. Raises BadRequest."""
    if BY_DATA not in sizes:
        return sizes
    others = -prod(sizes)
    if found % others:
        raise bad_json(f"the input's shape {sizes} has a multiple of {others:,} elements, its data {found:,}",
                       "send whole rows")  # fmt: skip
    filled = [found // others if size == BY_DATA else size for size in sizes]
    _check_count(sizes, filled)
    return filled


def _data(tensor: Mapping[str, Any], behind: bytes) -> bytes | list[Any]:
    """Return a tensor's bytes, or what stands in its JSON as one flat list."""
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if behind:
            raise bad_json(f"{len(behind)} bytes follow the JSON, and no binary_data_size says of what",
                           "send parameters of the input with binary_data_size")  # fmt: skip
        return _flat(tensor.get("data"))
    if type(size) is not int or size != len(behind):
        raise bad_json(
            f"binary_data_size is {shown(size)}, but {len(behind)} bytes follow the JSON",
            f"send as many bytes, and the JSON's length as {JSON_LENGTH}; or the data in the JSON: Triton's "
            "client does so with binary_data=False",
        )
    return behind


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise bad_json(f"the input's data is {shown(data)}", "send a list of values, row by row")
    flat: list[Any] = data
    while flat and set(map(type, flat)) == {list}:  # as deep as JSON was read at most
        flat = list(chain.from_iterable(flat))
    return flat


def _images(data: bytes | list[Any], sizes: list[int]) -> list[bytes]:
    """Return the image files of a BYTES tensor: raw behind the JSON, in base64 in it."""
    _check_files(prod(sizes))
    if isinstance(data, bytes):
        files = list(islice(_elements(data), MOST_IMAGES + 1))
    else:
        if not set(map(type, data)) <= {str}:
            raise bad_json("the data of BYTES is no list of texts", "send each image's file in base64")
        files = [decoded(text, f"element {number}") for number, text in enumerate(data[: MOST_IMAGES + 1])]
    count = prod(_filled(sizes, len(files)))
    _check_files(count)
    if len(files) != count:
        raise bad_json(f"the input's shape {sizes} has {count:,} elements, its data {len(files):,}",
                       "send a shape of [images]")  # fmt: skip
    return files


def _check_files(count: int) -> None:
    if count > MOST_IMAGES:
        raise too_many("the input's shape has", count)


def _elements(data: bytes) -> Iterator[bytes]:
    """Yield what stands in the bytes of a BYTES tensor, each behind its length."""
    place = 0
    while place < len(data):
        start = place + 4
        length = int.from_bytes(data[place:start], "little")
        place = start + length
        if place > len(data):
            raise bad_json("the bytes behind the JSON end within an element",
                           "send each image behind its length of four bytes, the lowest first")  # fmt: skip
        yield data[start:place]


def _tensors(data: bytes | list[Any], sizes: list[int], shape: tuple[int, int, int]) -> np.ndarray:
    """Return an FP32 tensor (N, C, H, W), already scaled as the model takes it."""
    found = len(data) // FLOAT32.itemsize if isinstance(data, bytes) else len(data)
    came, sizes = sizes, _filled(sizes, found)
    if tuple(sizes[1:]) != shape:
        raise bad_json(f"the input's shape is {came}", _remedy(shape))
    count = prod(sizes)
    if found != count or (isinstance(data, bytes) and len(data) % FLOAT32.itemsize):
        raise bad_json(f"the input's shape {came} has {count:,} values, its data {found:,}", _remedy(shape))
    tensor = np.frombuffer(data, FLOAT32) if isinstance(data, bytes) else _floats(data)
    # Of NaN this is false, too.
    if not (np.abs(tensor) <= LARGEST).all():
        raise bad_json(f"a value is no number up to {LARGEST:,.0f}",
                       "send grey levels scaled by the contract's mean and deviation")  # fmt: skip
    return tensor.astype(np.float32).reshape(sizes)


def _floats(data: list[Any]) -> np.ndarray:
    if not set(map(type, data)) <= {int, float}:
        raise bad_json("the data of FP32 is no list of numbers", "send numbers, or image files as BYTES")
    try:
        return np.array(data, np.float64)
    except OverflowError as error:  # a whole number of a hundred digits
        raise bad_json(f"a value is no number up to {LARGEST:,.0f}", "send float32 values") from error


def _wishes(told: Mapping[str, Any]) -> list[Wish]:
    wanted = told.get(OUTPUTS)
    if not wanted:
        binary = _parameters(told).get("binary_data_output") is True
        return [Wish(name, binary) for name in ANSWERS]
    if not isinstance(wanted, list) or len(wanted) > len(ANSWERS):
        raise _unknown_output(wanted)
    return [_wish(one) for one in wanted]


def _wish(wanted: Any) -> Wish:
    match wanted:
        case {"name": str(name)} if name in ANSWERS:
            parameters = _parameters(wanted)
            if parameters.get("classification"):
                raise bad_json("classification is not offered", f"ask for the output {PROBABILITIES}")
            return Wish(name, parameters.get("binary_data") is True)
        case _:
            raise _unknown_output(wanted)


def _unknown_output(wanted: Any) -> BadRequest:
    return bad_json(f"the output {shown(wanted)} is not known", f"send names of {', '.join(ANSWERS)}")


def _parameters(of: Mapping[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise bad_json(f"parameters is {shown(parameters)}, no object", "leave them out")
    return parameters


def _remedy(shape: tuple[int, int, int]) -> str:
    return (
        f"send image files as {BYTES} of shape [images], in base64 where they stand in the JSON, or "
        f"scaled grey levels as {FP32} of shape [images, {', '.join(map(str, shape))}]"
    )


def _as_bytes(kind: str, values: Any) -> bytes:
    if kind == BYTES:
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values)
    raw: bytes = np.ascontiguousarray(values).astype("<i8" if kind == INT64 else FLOAT32).tobytes()
    return raw


def _as_json(values: Any) -> list[Any]:
    """Return the values as one flat list, row by row."""
    if isinstance(values, list):
        return values
    flat: list[Any] = values.ravel().tolist()
    return [round(value, DIGITS) for value in flat] if values.dtype.kind == "f" else flat
