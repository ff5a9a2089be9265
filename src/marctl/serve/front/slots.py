"""The two slots behind a reverse proxy: one is active, the other is for the next version."""

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
    """A slot for one TorchServe: its folder, its ports, and its own copies of the archives it serves."""

    instance: Instance
    settings: Settings
    served: list[Served] = field(default_factory=list)
    _held: HeldFiles = field(default_factory=HeldFiles, init=False)

    def take(self, archives: Iterable[Path], terms: Terms) -> None:
        """Copy archives here and check them: a restart uses the copies, even if the originals were replaced.

        Raises what `served_copies.take` raises.
        """
        self._held.let_go()
        self.served = served_copies.take(archives, self._copies, terms)
        for one in self.served:
            self._held.hold(one.file)

    def started(self, running: Running) -> None:
        """Hold the other files that a server started here needs: its workers read them when they start."""
        names = [self.instance.folder / "config.properties", self.instance.home / METRICS.name]
        for path in (*names, *([Path(running.keys)] if running.keys is not None else [])):
            self._held.hold(path)

    def hold_on(self) -> None:
        """Restore deleted files: checked archives, settings, tokens. Raises OSError."""
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
    """The two slots, and which of them is active.

    For every request the proxy checks whether a file exists: if so, the twin answers. Unlike a new
    configuration, this closes no connections.
    """

    def __init__(self, first: Place, twin: Place, switch: Path, told: Callable[[list[Served]], None]) -> None:
        """Take both slots, the switch file, and a function called with what is served from now on."""
        self.answering, self.free, self._switch, self._told = first, twin, switch, told

    def begin(self, archives: Iterable[Path], terms: Terms) -> None:
        """Put archives into the active slot."""
        self.answering.take(archives, terms)
        self._told(self.answering.served)

    def exchange(self) -> None:
        """Make the other slot active, from the next request on."""
        if self._switch.exists():
            self._switch.unlink()
        else:
            self._switch.touch()
        self.answering, self.free = self.free, self.answering
        self._told(self.answering.served)

    def stop(self) -> None:
        """End what runs in either slot."""
        self.answering.stop()
        self.free.stop()


def twin_of(folder: Path) -> Instance:
    """Return the second slot of a folder."""
    return Instance(folder / TWIN)
