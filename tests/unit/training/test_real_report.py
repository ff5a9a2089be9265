"""The page shows what was measured."""

import json
import shutil

from tests.conftest import ROOT
from training import real_report

DOCS = ROOT / "docs"


def test_page_says_what_was_measured(tmp_path, monkeypatch):
    """The tables in docs/real-images.md are those of the JSON files beside it."""
    page = tmp_path / "page.md"
    shutil.copy(DOCS / "real-images.md", page)
    monkeypatch.setattr(real_report, "PAGE", page)
    monkeypatch.setattr(real_report, "circumstances", lambda *_: "circumstances")
    monkeypatch.setattr(real_report, "draw", lambda *_: None)
    before, now = (json.loads((DOCS / f"real-images{part}.json").read_text()) for part in ("-before", ""))
    real_report.write_report(before, now)
    kept = (DOCS / "real-images.md").read_text().split("<!-- circumstances -->")[0]
    assert page.read_text().split("<!-- circumstances -->")[0] == kept
