"""The OpenAPI document is valid, and has the options, limits and names of the code."""

import re

import pytest
from jsonschema import Draft202012Validator, ValidationError
from openapi_spec_validator import validate

from classifier.protocols import options as answer_form
from classifier.protocols.body import MOST_IMAGES
from classifier.protocols.kserve_v1 import KEYS
from classifier.protocols.kserve_v2 import ANSWERS, JSON_LENGTH
from marctl.serve.status_pages import DESCRIPTION, DOOR, FLASK, description
from tests.support.openapi import DOCUMENT, check, resolved


def test_document_is_openapi():
    """It is valid by the specification's own schema, for both servers."""
    for kind in (DOOR, FLASK):
        validate(description(kind))


def test_every_schema_is_one():
    """Every schema is valid, and every reference points to something."""
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in re.findall(r'"\$ref": "(#[^"]+)"', DESCRIPTION.read_text()):
        assert resolved({"$ref": reference})


def test_document_names_what_the_handler_knows():
    """The document has the same options, limits and names as the code."""
    schemas = DOCUMENT["components"]["schemas"]
    assert set(answer_form.OPTIONS) | {answer_form.MODEL_NAME} == {
        one["name"] for one in DOCUMENT["components"]["parameters"].values() if one["in"] == "query"
    }
    assert schemas["Instances"]["properties"]["instances"]["maxItems"] == MOST_IMAGES
    told = [set(one["properties"]) for one in schemas["Instance"]["oneOf"] if "properties" in one]
    assert set().union(*told) == set(KEYS)
    assert schemas["V2Name"]["enum"] == list(ANSWERS)
    assert JSON_LENGTH in {name["name"].lower() for name in DOCUMENT["components"]["parameters"].values()}


@pytest.mark.parametrize(
    ("answer", "schema"),
    [
        ({"label": "3", "index": 3, "probability": 0.9}, "Answer"),
        ({"label": 3, "index": 3, "probability": 0.9}, "Prediction"),
        ({"label": "3", "index": 3, "probability": 0.9, "surprise": 1}, "Prediction"),
        ({"error": {"code": 400, "message": "x"}}, "Error"),
        ({"error": {"code": 400, "message": "", "hint": "x"}}, "Error"),
        ({"error": "x; y"}, "Error"),
        ({"error": {"code": 400, "message": "x", "hint": "y"}}, "V2Error"),
        ({"error": ""}, "V2Error"),
        ({"inputs": [{"datatype": "BYTES", "shape": [0]}]}, "V2Request"),
        ({"inputs": [{"datatype": "BYTES", "shape": [-2]}]}, "V2Request"),
    ],
)
def test_schema_is_not_content_with_everything(answer, schema):
    """Values that are missing, of another type or not described do not fit."""
    with pytest.raises(ValidationError):
        check(answer, {"$ref": f"#/components/schemas/{schema}"})
