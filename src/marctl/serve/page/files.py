"""The page to play on: its files, their headers, and what it is told of the archive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from marctl.archive.labels import labels_of
from marctl.archive.mar import read_manifest

FILES = Path(__file__).with_name("static")
INDEX, SERVED, ADDRESS = "index.html", "served.json", "page"
TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "json": "application/json",
}
HEADERS = {
    # Everything comes from here and as a file, is asked of here, and shows in no other site's frame. No text
    # becomes code: neither what a server answers, nor the name of an image.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, and mostly answered by "not modified": page and server stay of one version.
    "Cache-Control": "no-cache",
}
OPEN_FOLDER, OPEN_FILE = 0o755, 0o644


def contents() -> dict[str, bytes]:
    """Return the page's files by their names."""
    return {file.name: file.read_bytes() for file in FILES.iterdir() if file.suffix[1:] in TYPES}


def addresses(told: str) -> dict[str, tuple[bytes, str]]:
    """Return bytes and Content-Type by the path of each address, with what the page is told."""
    files = contents() | {SERVED: told.encode()}
    at = {name: "/" if name == INDEX else f"/{ADDRESS}/{name}" for name in files}
    return {at[name]: (content, TYPES[name.rpartition(".")[2]]) for name, content in files.items()}


def lay_out(folder: Path) -> None:
    """Copy the page to where nginx's processes, which are nobody's, can read it."""
    page = folder / ADDRESS
    page.mkdir(exist_ok=True)
    page.chmod(OPEN_FOLDER)
    for name in contents():
        shutil.copyfile(FILES / name, page / name)
        (page / name).chmod(OPEN_FILE)


def tell(folder: Path, archives: Iterable[Path]) -> None:
    """Write down, for a page that was laid out, what answers from now on. Raises BadArchive."""
    told = folder / ADDRESS / SERVED
    new = told.with_suffix(".new")
    new.write_text(served((read_manifest(one)["model"]["modelName"], labels_of(one)) for one in archives))
    new.chmod(OPEN_FILE)
    new.replace(told)


def served(models: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return what the page is told: each model's name and its labels."""
    told = [{"name": name, "labels": list(labels)} for name, labels in models]
    return json.dumps({"models": told}) + "\n"
