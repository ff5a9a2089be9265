"""The web page: its files, their headers, and served.json, which lists the models."""

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
    # The page loads only our own files, sends requests only to us, and cannot be framed by another site. No
    # text can become code, neither a server's response nor the name of an image.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Revalidated each time, mostly answered with 304: page and server always have the same version.
    "Cache-Control": "no-cache",
}
OPEN_FOLDER, OPEN_FILE = 0o755, 0o644


def contents() -> dict[str, bytes]:
    """Return the page's files by name."""
    return {file.name: file.read_bytes() for file in FILES.iterdir() if file.suffix[1:] in TYPES}


def addresses(models: str) -> dict[str, tuple[bytes, str]]:
    """Return the bytes and Content-Type of each file by its URL path; `models` is served.json."""
    files = contents() | {SERVED: models.encode()}
    at = {name: "/" if name == INDEX else f"/{ADDRESS}/{name}" for name in files}
    return {at[name]: (content, TYPES[name.rpartition(".")[2]]) for name, content in files.items()}


def lay_out(folder: Path) -> None:
    """Copy the page to where nginx's workers, which run as nobody, can read it."""
    page = folder / ADDRESS
    page.mkdir(exist_ok=True)
    page.chmod(OPEN_FOLDER)
    for name in contents():
        shutil.copyfile(FILES / name, page / name)
        (page / name).chmod(OPEN_FILE)


def tell(folder: Path, archives: Iterable[Path]) -> None:
    """Write served.json for the archives that are served from now on. Raises BadArchive."""
    path = folder / ADDRESS / SERVED
    new = path.with_suffix(".new")
    new.write_text(served((read_manifest(one)["model"]["modelName"], labels_of(one)) for one in archives))
    new.chmod(OPEN_FILE)
    new.replace(path)


def served(models: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return served.json: each model's name and its labels."""
    listed = [{"name": name, "labels": list(labels)} for name, labels in models]
    return json.dumps({"models": listed}) + "\n"
