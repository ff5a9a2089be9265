"""Read an archive's labels without numpy, which keeps the supervisor small."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import yaml

from marctl.archive.mar import read_manifest


def labels_of(archive: Path) -> list[str]:
    """Return an archive's labels, unchecked: whoever loads the model checks them. Raises BadArchive.

    An archive that was not sealed may have no contract with labels; the list is empty then.
    """
    manifest = read_manifest(archive)
    with zipfile.ZipFile(archive) as mar:
        try:
            return _labels(mar, manifest["model"]["configFile"])
        except (KeyError, TypeError, ValueError, yaml.YAMLError):
            return []


def _labels(mar: zipfile.ZipFile, config: str) -> list[str]:
    labels = yaml.safe_load(mar.read(config))["labels"]
    if isinstance(labels, list):
        return labels
    names = json.loads(mar.read(labels))
    return [names[str(index)] for index in range(len(names))]
