"""The golden images of a model folder."""

from __future__ import annotations

from pathlib import Path

from marctl.errors import UserError


def golden_images(folder: Path) -> dict[str, bytes]:
    """Return each image file by name. Raises UserError if there is none."""
    files = [file for file in sorted(folder.glob("[!.]*")) if file.is_file()] if folder.is_dir() else []
    images = {file.name: file.read_bytes() for file in files}
    if not images:
        raise UserError(f"{folder} has no images; put in a few real ones, or name another folder: GOLDEN=...")
    return images
