"""The OpenAPI document, and a check of values against its schemas."""

import json
from functools import cache

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from marctl.serve.status_pages import DESCRIPTION

BASE = "urn:document"
DOCUMENT = json.loads(DESCRIPTION.read_text())
REGISTRY = Registry().with_resource(BASE, Resource(DOCUMENT, DRAFT202012))


def resolved(place: dict) -> dict:
    """Return what a reference within the document points to."""
    while "$ref" in place:
        found = DOCUMENT
        for word in place["$ref"].removeprefix("#/").split("/"):
            found = found[word]
        place = found
    return place


@cache
def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({"$id": "urn:one", **json.loads(schema)}, registry=REGISTRY)


def check(instance, schema: dict) -> None:
    """Validate a value against a schema whose references point into the document."""
    text = json.dumps(schema).replace('"#/', f'"{BASE}#/')
    validator(text).validate(instance)
