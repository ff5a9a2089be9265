"""KServe's V2 protocol, or Open Inference Protocol: tensors in, tensors out, in JSON or as bytes.

Triton's binary data extension, which its clients use by default, puts tensors as bytes after the JSON; a
header has the length of the JSON. The protocol: https://github.com/kserve/open-inference-protocol.
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
# As written in a body: the key of this protocol, and that of V1.
_KEY, _OTHER_KEY = f'"{INPUTS}"'.encode(), f'"{INSTANCES}"'.encode()
# Normalized grey levels are a few units. Sums of a million values up to this are still finite in float32.
LARGEST = 1e6
# Limits on a shape: no tensor here has more sizes or larger ones.
MOST_SIZES, MOST_ELEMENTS = 8, 2**26
# In place of a size: computed from the data.
BY_DATA = -1


class Wish(NamedTuple):
    """A requested tensor of the answer, and whether it is sent as bytes."""

    name: str
    binary: bool


class Inference(NamedTuple):
    """A request: image files or float32 (N, C, H, W), and the requested tensors of the answer."""

    images: list[bytes]
    tensors: np.ndarray | None
    id: str | None
    wishes: list[Wish]


def speaks_v2(request: Request) -> bool:
    """Return whether a request uses the V2 protocol, even if its JSON cannot be parsed.

    The URL decides if the adapter knows it, else the body and Triton's header.
    """
    if (protocol := request.headers.get(PROTOCOL)) is not None:
        return protocol == V2
    if JSON_LENGTH in request.headers:
        return True
    body = request.body
    if request.fields is not None and len(request.fields) == 1:
        [body] = request.fields.values()
    return is_json(body) and _KEY in body and _OTHER_KEY not in body


def json_part(body: bytes, headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Return the JSON of a body, and the bytes after it. Raises BadRequest."""
    length = headers.get(JSON_LENGTH)
    if length is None:
        return body, b""
    if not (length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= len(body)):  # noqa: PLR2004
        raise bad_json(
            f"{JSON_LENGTH} is {shown(length)}, but the body has {len(body)} bytes",
            "send the length of its JSON, or only JSON and no such header",
        )
    return body[: int(length)], body[int(length) :]


def read(content: Mapping[str, Any], behind: bytes, shape: tuple[int, int, int]) -> Inference:
    """Read a request from its JSON and the bytes after it; `shape` is the model's. Raises BadRequest."""
    name = content.get("id")
    if name is not None and not isinstance(name, str):
        raise bad_json(f"id is {shown(name)}, not text", "send it in quotes, or leave it out")
    tensor = _only_input(content, shape)
    sizes = _sizes(tensor)
    data = _data(tensor, behind)
    if tensor.get("datatype") == BYTES:
        return Inference(_images(data, sizes), None, name, _wishes(content))
    return Inference([], _tensors(data, sizes, shape), name, _wishes(content))


def answer(inference: Inference, seen: Seen, labels: Sequence[str], model: Mapping[str, Any]) -> Response:
    """Return the requested tensors, computed from the model's outputs."""
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


def _only_input(content: Mapping[str, Any], shape: tuple[int, int, int]) -> Mapping[str, Any]:
    match content.get(INPUTS):
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
                       "send a list of whole numbers, the number of images first")  # fmt: skip
    if sizes.count(BY_DATA) > 1:
        raise bad_json(f"the input's shape {sizes} leaves {sizes.count(BY_DATA)} sizes open",
                       f"send {BY_DATA} for at most one")  # fmt: skip
    _check_count(sizes, sizes)
    return sizes


def _check_count(came: list[int], sizes: list[int]) -> None:
    """Raise BadRequest if sizes, which may be completed from those that came, hold no or too many images."""
    if not prod(sizes):
        raise bad_json(f"the input's shape {came} holds no image", "send at least one")
    if sizes[0] > MOST_IMAGES:
        raise too_many("the input's shape has", sizes[0])


def _is_size(size: Any) -> bool:
    # Not "isinstance": true is an int, too.
    return type(size) is int and BY_DATA <= size <= MOST_ELEMENTS


def _filled(sizes: list[int], found: int) -> list[int]:
    """Return a shape with its open size computed from the elements found. Raises BadRequest."""
    if BY_DATA not in sizes:
        return sizes
    others = -prod(sizes)
    if found % others:
        raise bad_json(
            f"the input's shape {sizes} needs a multiple of {others:,} elements, but its data has {found:,}",
            "send whole rows",
        )
    filled = [found // others if size == BY_DATA else size for size in sizes]
    _check_count(sizes, filled)
    return filled


def _data(tensor: Mapping[str, Any], behind: bytes) -> bytes | list[Any]:
    """Return a tensor's bytes, or the data in its JSON as one flat list."""
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        if behind:
            raise bad_json(f"{len(behind)} bytes follow the JSON, but the input has no binary_data_size",
                           "send it in the input's parameters")  # fmt: skip
        return _flat(tensor.get("data"))
    if type(size) is not int or size != len(behind):
        raise bad_json(
            f"binary_data_size is {shown(size)}, but {len(behind)} bytes follow the JSON",
            f"send that many bytes, and the JSON's length as {JSON_LENGTH}; or send the data in the JSON, as "
            "Triton's client does with binary_data=False",
        )
    return behind


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise bad_json(f"the input's data is {shown(data)}", "send a list of values, row by row")
    flat: list[Any] = data
    while flat and set(map(type, flat)) == {list}:  # no deeper than the JSON parser allows
        flat = list(chain.from_iterable(flat))
    return flat


def _images(data: bytes | list[Any], sizes: list[int]) -> list[bytes]:
    """Return the image files of a BYTES tensor: raw after the JSON, base64 inside it."""
    _check_files(prod(sizes))
    if isinstance(data, bytes):
        files = list(islice(_elements(data), MOST_IMAGES + 1))
    else:
        if not set(map(type, data)) <= {str}:
            raise bad_json("the BYTES data is not a list of strings", "send each image file in base64")
        files = [decoded(text, f"element {number}") for number, text in enumerate(data[: MOST_IMAGES + 1])]
    count = prod(_filled(sizes, len(files)))
    _check_files(count)
    if len(files) != count:
        raise bad_json(f"the input's shape {sizes} has {count:,} elements, but its data has {len(files):,}",
                       "send the shape [images]")  # fmt: skip
    return files


def _check_files(count: int) -> None:
    if count > MOST_IMAGES:
        raise too_many("the input's shape has", count)


def _elements(data: bytes) -> Iterator[bytes]:
    """Yield the elements of a BYTES tensor, each of which follows its length."""
    place = 0
    while place < len(data):
        start = place + 4
        length = int.from_bytes(data[place:start], "little")
        place = start + length
        if place > len(data):
            raise bad_json("the bytes after the JSON end within an element",
                           "send each image after its length as four bytes, little-endian")  # fmt: skip
        yield data[start:place]


def _tensors(data: bytes | list[Any], sizes: list[int], shape: tuple[int, int, int]) -> np.ndarray:
    """Return an FP32 tensor (N, C, H, W), which the client has already normalized."""
    found = len(data) // FLOAT32.itemsize if isinstance(data, bytes) else len(data)
    came, sizes = sizes, _filled(sizes, found)
    if tuple(sizes[1:]) != shape:
        raise bad_json(f"the input's shape is {came}", _remedy(shape))
    count = prod(sizes)
    if found != count or (isinstance(data, bytes) and len(data) % FLOAT32.itemsize):
        raise bad_json(
            f"the input's shape {came} has {count:,} values, but its data has {found:,}", _remedy(shape)
        )
    tensor = np.frombuffer(data, FLOAT32) if isinstance(data, bytes) else _floats(data)
    # False for NaN, too.
    if not (np.abs(tensor) <= LARGEST).all():
        raise bad_json(f"a value is not a number up to {LARGEST:,.0f}",
                       "send grey levels normalized with the contract's mean and deviation")  # fmt: skip
    return tensor.astype(np.float32).reshape(sizes)


def _floats(data: list[Any]) -> np.ndarray:
    if not set(map(type, data)) <= {int, float}:
        raise bad_json("the FP32 data is not a list of numbers", "send numbers, or image files as BYTES")
    try:
        return np.array(data, np.float64)
    except OverflowError as error:  # a whole number of a hundred digits
        raise bad_json(f"a value is not a number up to {LARGEST:,.0f}", "send float32 values") from error


def _wishes(content: Mapping[str, Any]) -> list[Wish]:
    wanted = content.get(OUTPUTS)
    if not wanted:
        binary = _parameters(content).get("binary_data_output") is True
        return [Wish(name, binary) for name in ANSWERS]
    if not isinstance(wanted, list) or len(wanted) > len(ANSWERS):
        raise _unknown_output(wanted)
    return [_wish(one) for one in wanted]


def _wish(wanted: Any) -> Wish:
    match wanted:
        case {"name": str(name)} if name in ANSWERS:
            parameters = _parameters(wanted)
            if parameters.get("classification"):
                raise bad_json("classification is not supported", f"request the output {PROBABILITIES}")
            return Wish(name, parameters.get("binary_data") is True)
        case _:
            raise _unknown_output(wanted)


def _unknown_output(wanted: Any) -> BadRequest:
    return bad_json(f"there is no output {shown(wanted)}", f"ask for {', '.join(ANSWERS)}")


def _parameters(of: Mapping[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise bad_json(f"parameters is {shown(parameters)}, not an object", "leave it out")
    return parameters


def _remedy(shape: tuple[int, int, int]) -> str:
    return (
        f"send image files as {BYTES} of shape [images], in base64 if they are in the JSON, or "
        f"normalized grey levels as {FP32} of shape [images, {', '.join(map(str, shape))}]"
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
