"""KServe's V1 protocol."""

from classifier.protocols.kserve_v1 import KEYS
from tests.conftest import ROOT


def test_names_of_a_image_are_documented():
    """What an instance's image may be called stands in the page."""
    page = (ROOT / "docs" / "platforms.md").read_text()
    assert all(f'"{key}"' in page for key in KEYS)
