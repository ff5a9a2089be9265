"""The model card: what people want to know about an archive before they use it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from classifier.contract import Contract

LABELS_SHOWN = 12


def model_card(provenance: dict[str, Any], contract: Contract, golden: Iterable[str]) -> str:
    """Return the card as Markdown, from the facts that the archive also holds as JSON."""
    created = time.strftime("%Y-%m-%d", time.gmtime(provenance["created"]))
    labels = ", ".join(contract.labels[:LABELS_SHOWN])
    more = f", ... ({len(contract.labels)} in all)" if len(contract.labels) > LABELS_SHOWN else ""
    crop = f", after a resize of the shorter side to {contract.resize}" if contract.resize else ""
    found = f", with the drawing centred and {contract.ink} pixels long" if contract.ink else ""
    lines = [
        f"# {provenance['name']} {provenance['version']}",
        "",
        f"An image classifier. Source: commit {provenance['source_commit']} of {created}; built with torch "
        f"{provenance['torch']}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| input | images in {contract.color}, {contract.height} x {contract.width}{crop}{found} |",
        f"| mean, deviation | {_numbers(contract.mean)}; {_numbers(contract.std)} |",
        f"| answer | one of {labels}{more} |",
        f"| outputs | {contract.outputs} |",
        f"| runtime | {provenance['runtime']} |",
        f"| golden images | {', '.join(golden)} |",
        "",
        *_figures(provenance["figures"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _figures(figures: dict[str, Any] | None) -> list[str]:
    if not figures:
        return ["There are no training figures."]
    rows = [f"| {key.replace('_', ' ')} | {_short(value)} |" for key, value in figures.items()]
    return ["## Figures", "", "| | |", "| --- | --- |", *rows]


def _short(value: Any) -> str:
    if isinstance(value, list) and value:
        return f"{value[0]} to {value[-1]}"
    return str(value)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
