"""Takes the README's pictures of the page: on a desk by day, on a telephone by night."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import requests
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect

from browser import ROOT, chromium, draw

DESK, TELEPHONE = ViewportSize(width=1280, height=860), ViewportSize(width=390, height=844)
READY = 60.0  # seconds for the server
SHOWN = 30_000  # milliseconds for an answer, and for torch to be loaded before an explanation
STILL = 400  # milliseconds until no bar moves


def main() -> None:
    """Serve the archive, draw, and write docs/page.png and docs/page-phone.png."""
    arguments = _arguments()
    with _serving(arguments.archive, arguments.port) as url, chromium() as browser:
        page = _page(browser, url, DESK, "light")
        draw(page, "3")
        _save(page, ROOT / "docs" / "page.png")
        page = _page(browser, url, TELEPHONE, "dark")
        draw(page, "5")
        _save(page, ROOT / "docs" / "page-phone.png")


def _page(browser: Browser, url: str, size: ViewportSize, light: str) -> Page:
    telephone = size is TELEPHONE
    page = browser.new_context(
        viewport=size, color_scheme="dark" if light == "dark" else "light",
        device_scale_factor=2 if telephone else 1.5, is_mobile=telephone, has_touch=telephone,
    ).new_page()  # fmt: skip
    page.goto(url)
    expect(page.locator("#bars li")).not_to_have_count(0)
    return page


def _save(page: Page, path: Path) -> None:
    page.locator("#why").click(timeout=SHOWN)
    expect(page.locator("#legend")).to_be_visible(timeout=SHOWN)
    page.locator("h1").click()  # no button has the focus
    page.wait_for_timeout(STILL)
    Image.open(BytesIO(page.screenshot())).convert("RGB").save(path, optimize=True)
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size:,} bytes")


@contextmanager
def _serving(archive: Path, port: int) -> Iterator[str]:
    """Serve an archive by Flask; yield the page's address once it answers."""
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, str(ROOT / "servers" / "flask_app.py"), str(archive), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + READY
            while not _answers(url):
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the server does not answer")
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=READY).ok
    except requests.ConnectionError:
        return False


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="a .mar file")
    parser.add_argument("--port", type=int, default=23890, help="a free port (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
