"""KServe's V1 protocol."""

from classifier.protocols.kserve_v1 import KEYS
from tests.conftest import ROOT


def test_names_of_a_image_are_documented():
    """docs/platforms.md lists the keys that an instance's image can have."""
    page = (ROOT / "docs" / "platforms.md").read_text()
    assert all(f'"{key}"' in page for key in KEYS)
