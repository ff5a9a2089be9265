"""The tables of docs/real-images.md and their chart, from the figures before and now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from bench.report.markdown import circumstances, replace_marked, table
from training.families import FAMILIES, MIDDLE

DOCS = Path(__file__).parent.parent / "docs"
PAGE, CHART = DOCS / "real-images.md", DOCS / "robustness.png"
TARGET = 0.97
DPI = 120
Figures = dict[str, Any]


def write_report(before: Figures, now: Figures) -> None:
    """Write the page's tables and the chart."""
    replace_marked(PAGE, "families", _families(before, now))
    replace_marked(PAGE, "others", _others(before, now))
    replace_marked(PAGE, "no-digit", _no_digit(before, now))
    replace_marked(PAGE, "circumstances", circumstances("torch", "pillow", "scikit-learn"))
    draw(before, now)


def _families(before: Figures, now: Figures) -> str:
    head = ["family", "severities", "before", "", "", "now", "", "", "calibration error", "n"]
    rows = []
    for family in FAMILIES:
        old, new = before["families"][family.name], now["families"][family.name]
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


def _share(one: dict[str, float], *, counts: bool) -> str:
    share = f"{one['accuracy']:.1%}"
    return f"**{share}**" if counts else share


def _others(before: Figures, now: Figures) -> str:
    head = ["", "before", "now", "calibration error before", "now", "n"]
    rows = []
    for group in ("mnist", "others"):
        for name, new in now[group].items():
            old = before[group][name]
            right = [f"{one['accuracy']:.2%}" for one in (old, new)]
            errors = [f"{one['calibration_error']:.4f}" for one in (old, new)]
            rows.append([name, *right, *errors, f"{new['images']:,}"])
    return table(head, rows)


def _no_digit(before: Figures, now: Figures) -> str:
    head = ["kind of image", "shown in training", "below 0.5 before", "now", "mean before", "now", "n"]
    rows = []
    for name, new in now["no_digit"].items():
        old = before["no_digit"][name]
        shares = [f"{one['unsure']:.0%}" for one in (old, new)]
        means = [f"{one['mean']:.2f}" for one in (old, new)]
        rows.append([name, "yes" if new["trained"] else "no", *shares, *means, f"{new['images']:,}"])
    return table(head, rows)


def draw(before: Figures, now: Figures, path: Path = CHART) -> None:
    """Draw the accuracy of each family at its middle severity, before and now."""
    mpl.use("agg")
    names = [family.name for family in FAMILIES]
    places = np.arange(len(names))
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(names) + 1.3), layout="constrained")
    for figures, shift, color, label in ((before, -0.19, "#b0412e", "before"), (now, 0.19, "#2e6f8e", "now")):
        shares = np.array([[one["accuracy"] * 100 for one in figures["families"][name]] for name in names])
        bars = axes.barh(places + shift, shares[:, MIDDLE], height=0.36, color=color, label=label)
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
