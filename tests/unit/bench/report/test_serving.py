"""The pages that compare servers show what was measured."""

import json
import shutil

from bench.report import serving
from tests.conftest import ROOT


def test_pages_say_what_was_measured(tmp_path, monkeypatch):
    """The tables in docs/benchmark.md and README.md are those of docs/benchmark.json."""
    pages = {"PAGE": ROOT / "docs" / "benchmark.md", "README": ROOT / "README.md"}
    for name, page in pages.items():
        monkeypatch.setattr(serving, name, tmp_path / page.name)
        shutil.copy(page, tmp_path)
    monkeypatch.setattr(serving, "RAW", tmp_path / "benchmark.json")
    monkeypatch.setattr(serving, "_draw", lambda _: None)
    stated = pages["PAGE"].read_text().partition("<!-- circumstances -->\n")[2].partition("\n")[0]
    monkeypatch.setattr(serving, "circumstances", lambda *_: stated)
    rows = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    serving.write_report(rows, complete=True)
    for page in pages.values():
        assert (tmp_path / page.name).read_text() == page.read_text()
