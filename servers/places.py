"""The two places behind a front door: in one a TorchServe answers, the other is free for the next version."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from instance import Instance
from settings import Settings
from signature import SUFFIX as SIGNATURE

TWIN = "twin"


@dataclass
class Place:
    """Where one TorchServe runs: its folder, its ports, and its own copies of what it serves."""

    instance: Instance
    settings: Settings
    archives: list[Path] = field(default_factory=list)

    def take(self, archives: Iterable[Path]) -> None:
        """Copy archives here: what is started again is what was proven, whatever came in their place.

        From a folder in which nothing can be replaced, as in an image, they are taken as they lie there.
        """
        self.archives = list(archives)
        if not any(os.access(archive.parent, os.W_OK) for archive in self.archives):
            return
        folder = self.instance.folder / "served"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for archive in self.archives:
            shutil.copy2(archive, folder)
            if (signature := archive.with_name(archive.name + SIGNATURE)).exists():
                shutil.copy2(signature, folder)
        self.archives = [folder / archive.name for archive in self.archives]


class Places:
    """Two places, and which of them answers.

    The front door asks for every request whether a file is there: with it, the twin answers. No connection is
    closed when it comes or goes, as at a new configuration.
    """

    def __init__(
        self, first: Place, twin: Place, switch: Path, told: Callable[[list[Path]], None]
    ) -> None:
        """Take both places, the file, and who is told which archives answer from now on."""
        self.answering, self.free, self._switch, self._told = first, twin, switch, told

    def begin(self, archives: Iterable[Path]) -> None:
        """Let the place that answers take archives."""
        self.answering.take(archives)
        self._told(self.answering.archives)

    def exchange(self) -> None:
        """Let the other place answer, from the next request on."""
        if self._switch.exists():
            self._switch.unlink()
        else:
            self._switch.touch()
        self.answering, self.free = self.free, self.answering
        self._told(self.answering.archives)

    def stop(self) -> None:
        """End what runs in either place."""
        self.answering.instance.stop()
        self.free.instance.stop()


def twin_of(folder: Path) -> Instance:
    """Return the second place of a folder."""
    return Instance(folder / TWIN)
