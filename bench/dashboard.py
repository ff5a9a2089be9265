"""Draw deploy/grafana-dashboard.json under a short load, with a Prometheus that answers its queries."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import requests
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from PIL import ImageOps

from bench.load.images import DIGITS, encoded, load_images, opened
from bench.servers.checkout import ROOT, torchserve
from bench.servers.processes import free_port
from bench.servers.prometheus import DEPLOY, Prometheus, filled_in, prometheus_of

DRAWN = ROOT / "docs" / "dashboard.png"
OVER, STEP = "10s", 1  # the window of rates; seconds between two points
COLUMNS = 4
TABLE = "table"  # the type of a panel that is not a curve
PART = 25.0  # seconds of each part of the load
ANSWER = 30


def main() -> None:
    """Serve, make load, run each panel's queries on Prometheus, and draw docs/dashboard.png."""
    archive = _arguments().archive
    with (
        tempfile.TemporaryDirectory() as scratch,
        torchserve(archive) as port,
        prometheus_of(port + 2, free_port(1), Path(scratch)) as prometheus,
    ):
        began = time.time()
        _make_load(f"http://127.0.0.1:{port}/predictions/convnet")
        _draw(prometheus, began, time.time())


def _make_load(url: str) -> None:
    """Run two clients, sixteen, some with photos and broken files, then some with ink on white paper."""
    digits = list(DIGITS.values())
    photo = load_images()["12-megapixel JPEG"]
    mixed = [*digits, *digits, photo, b"no image", digits[0][:150], b""]
    shuffled = random.Random(0)  # noqa: S311 no secret
    for clients, bodies in ((2, digits), (16, digits), (8, mixed), (4, list(map(_inverted, digits)))):
        end = time.monotonic() + PART
        with ThreadPoolExecutor(clients) as pool:
            for _ in range(clients):
                pool.submit(_ask_until, end, url, shuffled.sample(bodies, len(bodies)))


def _ask_until(end: float, url: str, bodies: Iterable[bytes]) -> None:
    with requests.Session() as session:
        for body in itertools.cycle(bodies):
            if time.monotonic() > end:
                return
            session.put(url, data=body, timeout=ANSWER)


def _inverted(body: bytes) -> bytes:
    return encoded(ImageOps.invert(opened(body).convert("L")), "PNG")


def _draw(prometheus: Prometheus, began: float, ended: float) -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != TABLE]
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(17, 2.8 * rows), layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        for target in panel["targets"]:
            asked = {"query": filled_in(target["expr"], OVER), "start": began, "end": ended, "step": STEP}
            for series in prometheus.ask("query_range", **asked)["result"]:
                times, values = zip(*series["values"], strict=True)
                name = _named(target["legendFormat"], series["metric"])
                axis.plot([at - began for at in times], [float(value) for value in values], label=name, lw=1)
        _finish(axis, panel["title"], panel["fieldConfig"]["defaults"]["unit"])
    figure.savefig(DRAWN, dpi=70, metadata={"Software": None})
    plt.close(figure)


def _named(legend: str, labels: dict[str, Any]) -> str:
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def _finish(axis: Axes, title: str, unit: str) -> None:
    if unit == "percentunit":
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set_ylim(bottom=0)
    axis.set_title(f"{title}, seconds" if unit == "s" else title, fontsize=10)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=6, frameon=False, ncols=3, loc="best")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
