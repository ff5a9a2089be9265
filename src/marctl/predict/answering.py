"""Answer images in this process, with an archive of this project or another one's own handler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from marctl.archive.opened import NotOurs, Opened


class Answer(Protocol):
    """The answer to one image."""

    @property
    def body(self) -> Any:
        """The label, or an error as JSON."""

    @property
    def ok(self) -> bool:
        """Whether the image was answered."""

    @property
    def reason(self) -> str:
        """Why it was not answered: what came, and what to send."""


class Answering(Protocol):
    """An opened archive; close it, or use it in a `with`."""

    def predict(self, bodies: Sequence[bytes]) -> Sequence[Answer]:
        """Answer image files, each as if it had been sent alone."""

    def close(self) -> None:
        """Delete what was unpacked."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def open_archive(path: Path, public_key: Path | None = None) -> Answering:
    """Open an archive, which must be signed with the public key if one is given. Raises UserError."""
    try:
        return Opened(path, public_key)
    except NotOurs:
        # TorchServe is imported only for another project's archive.
        from marctl.predict.foreign import Foreign

        return Foreign(path, public_key)
