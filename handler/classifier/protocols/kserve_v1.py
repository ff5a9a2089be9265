"""Images in the JSON of KServe's V1 protocol, Vertex AI and SageMaker: base64 in a list of instances."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from .body import MOST_IMAGES, too_many
from .json_body import bad_json, shown

INSTANCES, PARAMETERS = "instances", "parameters"
# Keys for an instance's image: of TorchServe's examples, of TensorFlow Serving and of Vertex AI.
KEYS = ("data", "b64", "image_bytes")
EXAMPLE = 'send {"instances": [{"data": "<an image file in base64>"}]}'
DATA_URL = "data:"


def images_of(content: Mapping[str, Any]) -> list[bytes]:
    """Return the image files of a JSON object's instances. Raises BadRequest."""
    instances = content.get(INSTANCES)
    if INSTANCES not in content:
        raise bad_json(f"the JSON is {shown(content)}, without instances or inputs", EXAMPLE)
    if not isinstance(instances, list) or not instances:
        raise bad_json(f"instances is {shown(instances)}, not a list of images", EXAMPLE)
    if len(instances) > MOST_IMAGES:
        raise too_many("instances has", len(instances))
    return [_image(instance, f"instance {number}") for number, instance in enumerate(instances)]


def parameters_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters beside the instances, which say how to answer. Raises BadRequest."""
    parameters = content.get(PARAMETERS)
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise bad_json(
            f"parameters is {shown(parameters)}, not an object", 'send {"parameters": {"top_k": 3}}'
        )
    return parameters


def decoded(text: str, which: str) -> bytes:
    """Return the bytes of base64 text, which may be in lines or in a data: URL. Raises BadRequest."""
    if text.startswith(DATA_URL):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: it is not even ASCII
        raise bad_json(
            f"{which} is not valid base64 ({error})", "send an image file's bytes in base64"
        ) from error


def _image(instance: Any, which: str) -> bytes:
    value = instance
    for _ in range(2):  # {"image_bytes": {"b64": "..."}} is the deepest nesting in use
        if isinstance(value, dict) and len(named := [key for key in KEYS if key in value]) == 1:
            value = value[named[0]]
    if not isinstance(value, str):
        raise bad_json(f"{which} is {shown(instance)}, not an image", EXAMPLE)
    return decoded(value, which)
