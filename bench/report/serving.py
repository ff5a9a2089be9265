"""The tables and charts of a comparison of servers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt

from bench.report.markdown import circumstances, replace_marked, table
from bench.servers.checkout import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGE, RAW = DOCS / "benchmark.md", DOCS / "benchmark.json"
FIGURES = ("per_second", "p50", "p99", "cpu_per_1000", "memory", "worker_memory", "first_answer")
KINDS = ("plain", "ours", "no-op", "other", "other with our handler")
COLORS = {"plain": "#8c8c8c", "ours": "#b0412e", "no-op": "#d9a441", "other": "#2e6f8e"}
COLORS["other with our handler"] = "#6aa084"
LINES = ("-", "--", ":", "-.")

Row = dict[str, Any]


def write_report(rows: list[Row], *, complete: bool) -> None:
    """Print the tables; write those of a complete comparison, with its charts, into docs/ and the README."""
    medians = _medians(rows)
    summary, starts = _summary(medians), _starts(medians)
    figures = "\n\n".join(_table(medians, image) for image in _in_order(medians, "image"))
    print(f"{summary}\n\n{figures}\n\n{starts}")
    if not complete:
        return
    RAW.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    replace_marked(PAGE, "circumstances", circumstances("torch", "torchserve", "onnxruntime", "pillow"))
    for name, shown in (("summary", summary), ("figures", figures), ("starts", starts)):
        replace_marked(PAGE, name, shown)
    replace_marked(README, "speed", summary)
    _draw(medians)


def _medians(rows: Iterable[Row]) -> list[Row]:
    """Return a row for each server, image and number of connections: medians, and all failures."""
    grouped: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["server"], row["image"], row["connections"]), []).append(row)
    return [
        {
            **one[0],
            **{figure: statistics.median(row[figure] for row in one) for figure in FIGURES},
            "failed": sum(row["failed"] for row in one),
        }
        for one in grouped.values()
    ]


def _in_order(rows: Iterable[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _of(medians: Sequence[Row], **wanted: object) -> list[Row]:
    return [row for row in medians if all(row[key] == value for key, value in wanted.items())]


def _table(medians: Sequence[Row], image: str) -> str:
    counts = _in_order(_of(medians, image=image), "connections")
    head = [image]
    for count in counts:
        head += [f"{count}: answers/s", "p50 ms", "p99 ms"]
    head += ["CPU s per 1,000", "not 2xx"]
    shown = []
    for server in _in_order(medians, "server"):
        runs = {row["connections"]: row for row in _of(medians, image=image, server=server)}
        cells = [server]
        for count in counts:
            run = runs[count]
            cells += [f"{run['per_second']:,.0f}", f"{run['p50'] / 1000:.2f}", f"{run['p99'] / 1000:.1f}"]
        # Of the highest load, where the processors are busy with nothing else.
        cells += [f"{runs[counts[-1]]['cpu_per_1000']:.2f}", f"{sum(run['failed'] for run in runs.values())}"]
        shown.append(cells)
    return table(head, shown)


def _starts(medians: Sequence[Row]) -> str:
    head = ["", "first answer after", "memory, all", "largest worker"]
    rows = []
    for server in _in_order(medians, "server"):
        last = _of(medians, server=server)[-1]
        memory = (f"{last['memory']:,.0f} MB", f"{last['worker_memory']:,.0f} MB")
        rows.append([server, f"{last['first_answer']:.1f} s", *memory])
    return table(head, rows)


def _summary(medians: Sequence[Row]) -> str:
    """Return this archive's figures against each other kind's best, as ratios."""
    small, web, photo = _in_order(medians, "image")
    rows = [
        _ratio(medians, "answers/s, 28x28, 32 connections", "per_second", small, 32),
        _ratio(medians, "answers/s, 250x250, 32 connections", "per_second", web, 32),
        _ratio(medians, "answers/s, 12 megapixels, 8 connections", "per_second", photo, 8),
        _ratio(medians, "p50, 28x28, 1 connection", "p50", small, 1),
        _ratio(medians, "p50, 250x250, 1 connection", "p50", web, 1),
        _ratio(medians, "memory of a worker", "worker_memory", small, 32),
        _ratio(medians, "start to first answer", "first_answer", small, 32),
    ]
    present = [kind for kind in KINDS if kind != "ours" and _of(medians, kind=kind)]
    head = ["this archive against", *(f"best of {kind}" if kind != "plain" else kind for kind in present)]
    shown = [[name, *(ratios.get(kind, "") for kind in present)] for name, ratios in rows if ratios]
    return table(head, shown)


def _ratio(
    medians: Sequence[Row], name: str, figure: str, image: str, connections: int
) -> tuple[str, dict[str, str]]:
    runs = _of(medians, image=image, connections=connections)
    ours = [row[figure] for row in _of(runs, kind="ours")]
    if not ours:
        return name, {}
    best = max if figure == "per_second" else min
    ratios = {}
    for kind in KINDS:
        if values := [row[figure] for row in _of(runs, kind=kind)]:
            ratios[kind] = f"{ours[0] / best(values):.2f}x"
    return name, ratios


def _draw(medians: Sequence[Row]) -> None:
    images = _in_order(medians, "image")
    figure, axes = plt.subplots(1, len(images), figsize=(5 * len(images), 5), layout="constrained")
    for axis, image in zip(axes, images, strict=True):
        _curves(axis, _of(medians, image=image), "connections", "per_second")
        axis.set(title=image, xlabel="connections", ylabel="answers a second", xscale="log", yscale="log")
        axis.set_xticks(_in_order(_of(medians, image=image), "connections"))
        axis.get_xaxis().set_major_formatter("{x:.0f}")
        axis.minorticks_off()
    _save(figure, axes, "benchmark-throughput.png")
    figure, axes = plt.subplots(1, len(images), figsize=(5 * len(images), 5), layout="constrained")
    for axis, image in zip(axes, images, strict=True):
        _curves(axis, _of(medians, image=image), "per_second", "p50")
        axis.set(title=image, xlabel="answers a second", ylabel="median latency, µs")
        axis.set(xscale="log", yscale="log")
    _save(figure, axes, "benchmark-latency.png")


def _curves(axis: Any, rows: Sequence[Row], x: str, y: str) -> None:
    for kind in KINDS:
        for line, server in zip(LINES * 2, _in_order(_of(rows, kind=kind), "server"), strict=False):
            runs = _of(rows, server=server)
            width = 2.6 if kind == "ours" else 1.4
            axis.plot(
                [row[x] for row in runs], [row[y] for row in runs], line, color=COLORS[kind], label=server,
                linewidth=width, marker="o", markersize=3,
            )  # fmt: skip
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, alpha=0.25)


def _save(figure: Any, axes: Sequence[Any], name: str) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(DOCS / name, dpi=100, metadata={"Software": None})
    plt.close(figure)
