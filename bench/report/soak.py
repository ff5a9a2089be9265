"""The results of a long run: a table, and a chart of memory, answers and latency over time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from bench.report.markdown import circumstances, replace_marked, table

DOCS = Path(__file__).parents[2] / "docs"
PAGE, IMAGE = DOCS / "soak.md", DOCS / "soak.png"
COLORS = {"Java": "#b0412e", "worker": "#2e6f8e", "supervisor": "#6aa084", "nginx": "#d9a441"}
GREY = "#8c8c8c"
MILLISECONDS = 1000
SMOOTH = 5  # samples that are averaged for one point of a rate


@dataclass(frozen=True)
class Sample:
    """One interval: its end, its length and latencies in seconds, the memory at its end in MB."""

    at: float
    length: float
    latencies: list[float]
    refused: int
    memory: dict[str, float]


@dataclass
class Seen:
    """What all clients have seen; any of their threads may record it."""

    sent: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _latencies: list[float] = field(default_factory=list)
    _refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def right(self, seconds: float) -> None:
        """Record a right answer."""
        with self._lock:
            self.sent += 1
            self._latencies.append(seconds)

    def refuse(self) -> None:
        """Record a bad or hostile request that was handled correctly."""
        with self._lock:
            self.sent += 1
            self._refused += 1

    def err(self, what: str) -> None:
        """Record a wrong answer."""
        with self._lock:
            self.sent += 1
            self.wrong.append(what)

    def fail(self, what: str) -> None:
        """Record a failure to answer."""
        with self._lock:
            self.sent += 1
            self.failed.append(what)

    def taken(self) -> tuple[list[float], int]:
        """Return the latencies of right answers and the number of refusals since the last call."""
        with self._lock:
            latencies, self._latencies = self._latencies, []
            refused, self._refused = self._refused, 0
        return latencies, refused


def write_report(samples: Sequence[Sample], seen: Seen, died: int) -> str:
    """Draw the chart, write the table into its page, and return the table."""
    every = [latency for sample in samples for latency in sample.latencies]
    p50, p99 = np.percentile(every, (50, 99)) * MILLISECONDS if every else (0.0, 0.0)
    head = ["requests", "wrong", "failed", "workers died", "p50", "p99", "largest latency"]
    counts = (seen.sent, len(seen.wrong), len(seen.failed), died)
    times = (p50, p99, max(every, default=0.0) * MILLISECONDS)
    row = [*(f"{number:,}" for number in counts), *(f"{value:,.1f} ms" for value in times)]
    memory = table(
        ["MB, of the largest", "after a minute", "halfway", "at the end", "maximum"],
        [[kind, *(f"{value:,.0f}" for value in _of_kind(samples, kind))] for kind in COLORS],
    )
    packages = circumstances("torchserve", "onnxruntime", "pillow")
    ran = f"It ran for {samples[-1].at / 60:.0f} minutes: {packages}"
    shown = f"{table(head, [row])}\n\n{memory}\n\n{ran}"
    replace_marked(PAGE, "soak", shown)
    _draw(samples)
    return shown


def _of_kind(samples: Sequence[Sample], kind: str) -> tuple[float, ...]:
    minute = next((sample for sample in samples if sample.at >= 60), samples[0])  # noqa: PLR2004 seconds
    some = (minute, samples[len(samples) // 2], samples[-1])
    return (*(sample.memory[kind] for sample in some), max(sample.memory[kind] for sample in samples))


def _draw(samples: Sequence[Sample]) -> None:
    figure, axes = plt.subplots(3, 1, figsize=(10, 9), sharex=True, layout="constrained")
    minutes = [sample.at / 60 for sample in samples]
    for kind, color in COLORS.items():
        values = [sample.memory[kind] for sample in samples]
        _line(axes[0], minutes, values, color, kind)
    axes[0].set(title="Memory of each process, MB", ylim=(0, None))
    good = _smooth([len(sample.latencies) / sample.length for sample in samples])
    refused = _smooth([sample.refused / sample.length for sample in samples])
    _line(axes[1], minutes, good, COLORS["worker"], "right answers")
    _line(axes[1], minutes, refused, GREY, "bad and hostile requests,\nrefused as they should be")
    axes[1].set(title="Answers a second", ylim=(0, None))
    for share, color in ((50, COLORS["worker"]), (99, COLORS["Java"])):
        values = [
            float(np.percentile(sample.latencies, share)) * MILLISECONDS if sample.latencies else float("nan")
            for sample in samples
        ]
        _line(axes[2], minutes, values, color, f"p{share}")
    axes[2].set(title="Latency of right answers, ms", xlabel="minutes", yscale="log")
    axes[2].get_yaxis().set_major_formatter("{x:g}")
    figure.savefig(IMAGE, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _line(axis: Any, x: Sequence[float], y: Sequence[float], color: str, name: str) -> None:
    """Draw a line with its name at its end."""
    axis.plot(x, y, color=color, linewidth=1.8)
    axis.annotate(
        name, (x[-1], y[-1]), xytext=(8, 0), textcoords="offset points", color=color, va="center",
        annotation_clip=False,
    )  # fmt: skip
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, alpha=0.25)
    axis.set_xlim(0, x[-1])


def _smooth(values: Sequence[float]) -> list[float]:
    return [float(np.mean(values[max(0, i - SMOOTH + 1) : i + 1])) for i in range(len(values))]
