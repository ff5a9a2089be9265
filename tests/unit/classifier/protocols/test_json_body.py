"""The values in JSON are counted before it is parsed."""

import pytest

from classifier.errors import BadRequest
from classifier.protocols.json_body import read_json


def test_json_is_counted_before_it_is_read():
    """Thirty megabytes of empty lists, which would take a gigabyte, are refused for their number."""
    with pytest.raises(BadRequest, match="the JSON has about"):
        read_json(b"[" + b"[]," * 10**7 + b"[]]", 10_000)
