"""Take the screenshots of the web page: on a desktop in light mode, on a phone in dark mode."""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect

from bench.servers.checkout import ROOT, flask
from bench.servers.chromium import chromium, draw

DESKTOP, PHONE = ViewportSize(width=1280, height=860), ViewportSize(width=390, height=844)
SHOWN = 30_000  # milliseconds for an answer, and for torch to be loaded before an explanation
STILL = 400  # milliseconds until the bars stand still


def main() -> None:
    """Serve the archive, draw, and write docs/page.png and docs/page-phone.png."""
    with flask(_arguments().archive, EXPLAIN="1") as port, chromium() as browser:
        url = f"http://127.0.0.1:{port}/"
        page = _page(browser, url, DESKTOP, "light")
        draw(page, "3")
        _save(page, ROOT / "docs" / "page.png")
        page = _page(browser, url, PHONE, "dark")
        draw(page, "5")
        _save(page, ROOT / "docs" / "page-phone.png")


def _page(browser: Browser, url: str, size: ViewportSize, scheme: str) -> Page:
    phone = size is PHONE
    page = browser.new_context(
        viewport=size, color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=2 if phone else 1.5, is_mobile=phone, has_touch=phone,
    ).new_page()  # fmt: skip
    page.goto(url)
    expect(page.locator("#bars li")).not_to_have_count(0)
    return page


def _save(page: Page, path: Path) -> None:
    page.locator("#why").click(timeout=SHOWN)
    expect(page.locator("#legend")).to_be_visible(timeout=SHOWN)
    page.locator("h1").click()  # so that no button has the focus
    page.wait_for_timeout(STILL)
    Image.open(BytesIO(page.screenshot())).convert("RGB").save(path, optimize=True)
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size:,} bytes")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
