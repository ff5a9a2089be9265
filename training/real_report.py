"""The tables of docs/real-images.md, its chart and README's table, from the figures before and now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from bench.report.markdown import circumstances, replace_marked, table
from training.families import FAMILIES, MIDDLE
from training.image_files import Family

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.md"
PAGE, CHART = DOCS / "real-images.md", DOCS / "robustness.png"
TARGET = 0.97
DPI = 120
MISSING = "\N{EN DASH}"  # what was not measured, because it came later
# The families of README's table.
FEATURED = (
    "plot of matplotlib",
    "cell of a form",
    "margin of another colour",
    "28 x 28 by others",
    "photo, 12 megapixels",
    "in a shadow",
    "tilted",
)
DARK, LIGHT = ", black on white", ", white on black"  # how the names of a set's two rows end
Figures = dict[str, Any]


def write_report(before: Figures, now: Figures) -> None:
    """Write the page's tables and the chart; a dash stands for figures that are missing."""
    replace_marked(PAGE, "summary", _summary(before, now, [family.name for family in _measured(now)]))
    replace_marked(README, "accuracy", _summary(before, now, FEATURED))
    replace_marked(PAGE, "others", _others(before, now))
    replace_marked(PAGE, "polarities", _polarities(before, now))
    replace_marked(PAGE, "by-digit", _by_digit(before, now))
    replace_marked(PAGE, "families", _families(before, now))
    replace_marked(PAGE, "no-digit", _no_digit(before, now))
    replace_marked(PAGE, "circumstances", circumstances("torch", "pillow", "scikit-learn", "matplotlib"))
    draw(before, now)


def _summary(before: Figures, now: Figures, families: Iterable[str]) -> str:
    """Return the accuracy of the sets that were not made here, then of families at their middle severity."""
    pairs: dict[str, list[Mapping[str, float]]] = {
        name: [_both_polarities(one["others"], name) for one in (before, now)] for name in _sets(now)
    }
    for group, names in (("mnist", now["mnist"]), ("families", families)):
        pairs |= {name: [_middle(one[group], name) for one in (before, now)] for name in names}
    rows = [[name, *_shares(both)] for name, both in pairs.items()]
    return table(["right answers", "plain", "now", "images"], rows)


def _shares(both: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the cells of figures before and now: their accuracies, and the number of images."""
    return [*(_cell(one, "accuracy", ".1%") for one in both), _cell(both[-1], "images", ",")]


def _sets(now: Figures) -> list[str]:
    """Return the names of the sets that were not made here, without the polarity."""
    return [name.removesuffix(DARK) for name in now["others"] if name.endswith(DARK)]


def _both_polarities(rows: Mapping[str, Mapping[str, float]], name: str) -> dict[str, float]:
    """Return the accuracy of a set in both polarities, and the number of its images."""
    both = [rows[name + end] for end in (DARK, LIGHT) if name + end in rows]
    if not both:
        return {}
    return {"accuracy": sum(one["accuracy"] for one in both) / len(both), "images": both[0]["images"]}


def _middle(rows: Mapping[str, Any], name: str) -> Mapping[str, float]:
    """Return the figures of a row, at the middle severity if it has three."""
    found: Mapping[str, float] | list[Mapping[str, float]] = rows.get(name, {})
    return found[MIDDLE] if isinstance(found, list) else found


def _families(before: Figures, now: Figures) -> str:
    head = ["family", "severities", "before", "", "", "now", "", "", "calibration error", "n"]
    rows = []
    for family in _measured(now):
        old, new = before["families"].get(family.name, [{}] * 3), now["families"][family.name]
        severities = ", ".join(f"{severity:g}" for severity in family.severities)
        middle = new[MIDDLE]
        rows.append(
            [
                family.name,
                f"{family.meaning}: {severities}",
                *(_share(one, counts=i == MIDDLE) for some in (old, new) for i, one in enumerate(some)),
                f"{middle['calibration_error']:.3f}",
                f"{middle['images']:,}",
            ]
        )
    return table(head, rows)


def _measured(now: Figures) -> list[Family]:
    """Return the families that have figures."""
    return [family for family in FAMILIES if family.name in now["families"]]


def _share(one: dict[str, float], *, counts: bool) -> str:
    share = _cell(one, "accuracy", ".1%")
    return f"**{share}**" if counts else share


def _cell(one: Mapping[str, float], name: str, form: str) -> str:
    return format(one[name], form) if name in one else MISSING


def _others(before: Figures, now: Figures) -> str:
    head = ["", "before", "now", "calibration error before", "now", "wrong, but sure before", "now", "n"]
    forms = {"accuracy": ".2%", "calibration_error": ".4f", "wrong_but_sure": ".2%"}
    rows = []
    for group in ("mnist", "others"):
        for name, new in now[group].items():
            old = before[group].get(name, {})
            cells = [_cell(one, key, form) for key, form in forms.items() for one in (old, new)]
            rows.append([name, *cells, f"{new['images']:,}"])
    return table(head, rows)


def _polarities(before: Figures, now: Figures) -> str:
    """Return by how many percentage points each set is read better black on white than white on black."""
    rows = [[name, *(_difference(one["others"], name) for one in (before, now))] for name in _sets(now)]
    return table(["black on white minus white on black", "before", "now"], rows)


def _difference(rows: dict[str, dict[str, float]], name: str) -> str:
    if name + DARK not in rows or name + LIGHT not in rows:
        return MISSING
    points = 100 * (rows[name + DARK]["accuracy"] - rows[name + LIGHT]["accuracy"])
    return f"{points:+.2f}"


def _by_digit(before: Figures, now: Figures) -> str:
    head = ["digit", "wrong before", "now", "wrong, but sure before", "now", "n"]
    old, new = (_with_sum(figures.get("others_by_digit", {})) for figures in (before, now))
    rows = []
    for digit in new:
        both = old.get(digit, {}), new[digit]
        cells = [_of_all(one, key) for key in ("wrong", "wrong_but_sure") for one in both]
        rows.append([digit, *cells, _cell(new[digit], "images", ",")])
    return table(head, rows)


def _with_sum(digits: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Return the counts of each digit, and their sums."""
    names = next(iter(digits.values()), {})
    return digits | {"all": {name: sum(one[name] for one in digits.values()) for name in names}}


def _of_all(counts: dict[str, int], name: str) -> str:
    return f"{counts[name] / counts['images']:.2%}" if name in counts else MISSING


def _no_digit(before: Figures, now: Figures) -> str:
    head = ["kind of image", "shown in training", "below 0.5 before", "now", "mean before", "now", "n"]
    rows = []
    for name, new in now["no_digit"].items():
        both = before["no_digit"].get(name, {}), new
        shares = [_cell(one, "unsure", ".0%") for one in both]
        means = [_cell(one, "mean", ".2f") for one in both]
        rows.append([name, "yes" if new["trained"] else "no", *shares, *means, f"{new['images']:,}"])
    return table(head, rows)


def draw(before: Figures, now: Figures, path: Path = CHART) -> None:
    """Draw the accuracy of each family at its middle severity, before and now."""
    mpl.use("agg")
    names = [family.name for family in _measured(now)]
    none = [{"accuracy": np.nan}] * 3  # no bar
    places = np.arange(len(names))
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(names) + 1.3), layout="constrained")
    for figures, shift, color, label in ((before, -0.19, "#b0412e", "before"), (now, 0.19, "#2e6f8e", "now")):
        shares = [figures["families"].get(name, none)[MIDDLE]["accuracy"] * 100 for name in names]
        bars = axes.barh(places + shift, shares, height=0.36, color=color, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=7, label_type="edge")
    axes.axvline(TARGET * 100, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"right answers in %, each family at its middle severity; dotted: {TARGET:.0%}")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.06), ncols=2)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
