"""The page shows what was measured."""

import json
import shutil
from copy import deepcopy

import pytest
from PIL import Image

from tests.conftest import ROOT
from training import real_report

DOCS = ROOT / "docs"


def measured():
    """Return the committed figures, before and now."""
    return [json.loads((DOCS / f"real-images{part}.json").read_text()) for part in ("-before", "")]


def a_page(tmp_path, monkeypatch):
    """Return a copy of the page, to which the report is written; README's is beside it."""
    page = tmp_path / "page.md"
    shutil.copy(DOCS / "real-images.md", page)
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.setattr(real_report, "PAGE", page)
    monkeypatch.setattr(real_report, "README", tmp_path / "README.md")
    monkeypatch.setattr(real_report, "circumstances", lambda *_: "circumstances")
    monkeypatch.setattr(real_report, "draw", lambda *_: None)
    return page


@pytest.fixture
def later():
    """Figures before and now; only the latter have a family, a set, a kind and the errors by digit."""
    before = measured()[0]
    for group in ("families", "others", "no_digit"):
        before[group] = dict(list(before[group].items())[:2])
    before.pop("others_by_digit", None)
    now = deepcopy(before)
    one = {"images": 793, "accuracy": 0.95, "calibration_error": 0.02, "wrong_but_sure": 0.0125}
    now["families"]["slashed zero"] = [one, one | {"accuracy": 0.91}, one]
    now["others"]["Semeion's, black on white"] = one
    now["others"]["Semeion's, white on black"] = one | {"accuracy": 0.9625}
    now["no_digit"]["clouds"] = {"images": 300, "trained": False, "unsure": 0.5, "mean": 0.2}
    now["others_by_digit"] = {
        "0": {"images": 50, "wrong": 5, "wrong_but_sure": 1},
        "1": {"images": 150, "wrong": 5, "wrong_but_sure": 0},
    }
    return before, now


@pytest.mark.parametrize(
    "row",
    [
        "| Semeion's | ? | 95.6% | 793 |",
        "| Semeion's, black on white | ? | 95.00% | ? | 0.0200 | ? | 1.25% | 793 |",
        "| Semeion's | ? | -1.25 |",
        "| scikit-learn's digits | -75.51 | -75.51 |",
        "| 0 | ? | 10.00% | ? | 2.00% | 50 |",
        "| all | ? | 5.00% | ? | 0.50% | 200 |",
        "| slashed zero | length of the slash: 0.6, 1, 1.4 | ? | **?** | ? | 95.0% | **91.0%** | 95.0% |",
        "| clouds | no | ? | 50% | ? | 0.20 | 300 |",
    ],
)
def test_missing_figures_are_dashes(row, later, tmp_path, monkeypatch):
    """What was measured only now has a dash before; the differences and the sums are computed."""
    page = a_page(tmp_path, monkeypatch)
    real_report.write_report(*later)
    assert row.replace("?", real_report.MISSING) in page.read_text()


def test_images_not_made_here_come_first():
    """The page shows the digits from other sources, then what was drawn."""
    page = (DOCS / "real-images.md").read_text()
    order = ("summary", "others", "polarities", "by-digit", "families", "no-digit", "circumstances")
    places = [page.index(f"<!-- {name} -->") for name in order]
    assert places == sorted(places)


def test_chart_leaves_out_bars_that_were_not_measured(later, tmp_path):
    """A family that was not measured before is in the chart, with one bar."""
    real_report.draw(*later, path=tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as chart:
        assert chart.format == "PNG"


def test_readme_begins_with_images_not_made_here(later, tmp_path, monkeypatch):
    """Its table has those sets, then families; what was not measured is a dash."""
    a_page(tmp_path, monkeypatch)
    real_report.write_report(*later)
    rows = (tmp_path / "README.md").read_text().partition("<!-- accuracy -->\n")[2].splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows[:2]] == ["| scikit-learn's digits", "| Semeion's"]
    assert f"| {real_report.FEATURED[0]} | {real_report.MISSING} | {real_report.MISSING} |" in "\n".join(rows)


def test_page_says_what_was_measured(tmp_path, monkeypatch):
    """The tables in docs/real-images.md and README are those of the JSON files in docs/."""
    page = a_page(tmp_path, monkeypatch)
    real_report.write_report(*measured())
    kept = (DOCS / "real-images.md").read_text().split("<!-- circumstances -->")[0]
    assert page.read_text().split("<!-- circumstances -->")[0] == kept
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()
