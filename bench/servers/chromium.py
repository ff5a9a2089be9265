"""Debian's Chromium, headless, and drawing in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "chromium"
OPTIONS = (
    "--no-sandbox",  # needed by root, as in a container; only our own page is opened
    "--disable-gpu",
    # It must talk only to our server.
    "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
# By digit: strokes of points [x, y], 0 to 1 from left and top, as drawn by hand.
STROKES: dict[str, list[list[list[float]]]] = json.loads(Path(__file__).with_name("strokes.json").read_text())


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a Chromium with an empty profile, and end it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


def draw(page: Page, digit: str) -> None:
    """Draw a digit on the page's paper with the mouse."""
    box = page.locator("#paper").bounding_box()
    if box is None:
        raise RuntimeError("the page has no paper")
    for stroke in STROKES[digit]:
        first, *others = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*first)
        page.mouse.down()
        for point in others:
            page.mouse.move(*point)
        page.mouse.up()
