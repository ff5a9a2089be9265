"""What the other servers answer with: ConvNet as their documentation suggests, or our archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Names an archive that answers instead of torchvision's transforms and the class.
ARCHIVE = "BENCH_ARCHIVE"


class ArchiveClassifier:
    """Our archive, in another server."""

    def __init__(self, archive: Path) -> None:
        from marctl.archive.opened import Opened  # not needed if torchvision answers

        self.opened = Opened(archive)
        self.classifier = self.opened.classifier
        self.read = self.classifier.read_pixels

    def label(self, images: list[Any]) -> list[str]:
        """Return the label of each image of a batch."""
        batch = self.classifier.preprocess(images)
        return self.classifier.postprocess(self.classifier.inference(batch))


def load() -> Any:
    """Return the classifier that this server answers with."""
    if archive := os.environ.get(ARCHIVE):
        return ArchiveClassifier(Path(archive))
    # Imported here: an archive answers without torch, which takes most of a process's memory.
    from bench.servers.others.convnet import Classifier

    return Classifier()
