"""The two slots behind a reverse proxy: in one a TorchServe answers, the other is for the next version."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from marctl.serve import served_copies
from marctl.serve.held_files import HeldFiles
from marctl.serve.served_copies import Terms
from marctl.serve.torchserve.instance import METRICS, Instance, Running, Served
from marctl.serve.torchserve.settings import Settings

TWIN = "twin"


@dataclass
class Place:
    """Where one TorchServe runs: its folder, its ports, and its own copies of what it serves."""

    instance: Instance
    settings: Settings
    served: list[Served] = field(default_factory=list)
    _held: HeldFiles = field(default_factory=HeldFiles, init=False)

    def take(self, archives: Iterable[Path], terms: Terms) -> None:
        """Copy archives here and check the copies: they are started again, whatever came in their place.

        Raises what `served_copies.take` does.
        """
        self._held.let_go()
        self.served = served_copies.take(archives, self._copies, terms)
        for one in self.served:
            self._held.hold(one.file)

    def started(self, running: Running) -> None:
        """Hold what a server that was started here needs besides: its workers read it whenever one starts."""
        names = [self.instance.folder / "config.properties", self.instance.home / METRICS.name]
        for path in (*names, *([Path(running.keys)] if running.keys is not None else [])):
            self._held.hold(path)

    def hold_on(self) -> None:
        """Put back what somebody has deleted: checked bytes, settings, tokens. Raises OSError."""
        self._held.put_back()

    def stop(self) -> None:
        """End what runs here, and delete the copies."""
        self.instance.stop()
        self._held.let_go()
        served_copies.drop(self._copies)

    @property
    def _copies(self) -> Path:
        return self.instance.folder / served_copies.FOLDER


class Places:
    """Two places, and which of them answers.

    For every request the proxy looks whether a file exists: if so, the twin answers. No connection is closed
    when it comes or goes, as a new configuration would do.
    """

    def __init__(self, first: Place, twin: Place, switch: Path, told: Callable[[list[Served]], None]) -> None:
        """Take both places, the file, and who is told what is served from now on."""
        self.answering, self.free, self._switch, self._told = first, twin, switch, told

    def begin(self, archives: Iterable[Path], terms: Terms) -> None:
        """Let the place that answers take archives."""
        self.answering.take(archives, terms)
        self._told(self.answering.served)

    def exchange(self) -> None:
        """Let the other place answer, from the next request on."""
        if self._switch.exists():
            self._switch.unlink()
        else:
            self._switch.touch()
        self.answering, self.free = self.free, self.answering
        self._told(self.answering.served)

    def stop(self) -> None:
        """End what runs in either place."""
        self.answering.stop()
        self.free.stop()


def twin_of(folder: Path) -> Instance:
    """Return the second place of a folder."""
    return Instance(folder / TWIN)
