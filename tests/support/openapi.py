"""The OpenAPI document, and whether a value is what it says."""

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
    """Return what a reference within the document leads to."""
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
    """Hold a value against a schema of the document, whose references lead into it."""
    text = json.dumps(schema).replace('"#/', f'"{BASE}#/')
    validator(text).validate(instance)
