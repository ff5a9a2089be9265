"""Open an archive in this process, without a server: its own code is loaded under a unique name."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marctl.archive.mar import BadArchive, read_manifest, reading
from marctl.archive.private_copy import private_copy
from marctl.archive.runtime import check_installed

if TYPE_CHECKING:
    from classifier.classifier import Classifier
    from classifier.messages import Request, Response

PACKAGE = "classifier"
# These variables would change how torch.load reads weights, and could make it run code in a pickle.
LOADING = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD")
_numbers = itertools.count()


class NotOurs(BadArchive):
    """An archive whose handler is another project's."""


class Opened:
    """An opened archive. Close it, or use it in a `with`: its files are in a temporary folder.

    The archive's own code answers, not the package `classifier` installed here. Its imports are relative, so
    it is loaded under a unique name, and several archives can be open at once.
    """

    classifier: Classifier

    def __init__(self, path: Path, public_key: Path | None = None, *, own_names: bool = False) -> None:
        """Unpack a private copy of the archive, and load it.

        With a public key, the copy must be signed with it. With `own_names` the modules of the model's class
        keep their own names: exporters write them into their files. Raises UserError, and BadArchive with
        what the archive's code raised.
        """
        for variable in LOADING:
            os.environ.pop(variable, None)
        self.path = path
        self.name = f"archive_{next(_numbers)}"
        # Deleted by close(), or when the process ends at the latest.
        self._folder = tempfile.TemporaryDirectory(prefix="archive-")
        self.folder = Path(self._folder.name).resolve()
        try:
            model = unpack(path, self.folder, public_key)
            check_ours(path, self.folder)
            names = {one.name for one in self.folder.iterdir()}
            check_installed(names, model)
            self._load(own_names=own_names)
        except BaseException:
            self.close()
            raise

    def _load(self, *, own_names: bool) -> None:
        """Load the archive's code and model. Raises BadArchive with what they raise."""
        try:
            load_package(self.folder / PACKAGE, self.name)
            core = importlib.import_module(f"{self.name}.classifier")
            self.classifier = core.Classifier.open(self.folder, prefix="" if own_names else None)
            self._request: type[Request] = core.Request
        except Exception as error:
            raise BadArchive(f"{self.path} does not load: {type(error).__name__}: {error}") from error

    def predict(self, bodies: Sequence[bytes]) -> list[Response]:
        """Answer one batch of image files, each as its own request."""
        return self.classifier.answer([self._request(body) for body in bodies])

    def answer(self, requests: Sequence[dict[str, Any]]) -> list[Response]:
        """Answer one batch of requests, each given as a dict of the fields of `Request`."""
        return self.classifier.answer([self._request(**request) for request in requests])

    def check_eager(self) -> None:
        """Check the eager reference against the golden answers, whatever the runtime. Raises BadArchive."""
        try:
            self.classifier.check_eager()
        except Exception as error:  # the archive's own code runs here
            raise BadArchive(f"its eager reference fails: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Delete the unpacked files, and remove the modules loaded from them from sys.modules."""
        below = f"{self.folder}{os.sep}"
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(below):
                del sys.modules[name]
        self._folder.cleanup()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_ours(path: Path, folder: Path) -> None:
    """Raise NotOurs if an unpacked archive has another project's handler."""
    if not (folder / PACKAGE).is_dir():
        raise NotOurs(
            f"the handler of {path} is not this project's, so this command cannot use it; to answer images "
            "with it: make predict; to serve it: make serve SEALED=no; to convert it: make adopt"
        )


def unpack(path: Path, folder: Path, public_key: Path | None = None) -> dict[str, Any]:
    """Unpack a private copy of an archive into a folder; return the `model` section of its manifest.

    Raises UserError.
    """
    # What was checked is what is unpacked, even if the file is replaced meanwhile.
    with private_copy(path, public_key) as own:
        model: dict[str, Any] = read_manifest(own)["model"]
        with reading(own) as mar:
            mar.extractall(folder)
    return model


def load_package(folder: Path, name: str) -> None:
    """Import the package in a folder under another name."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder.name} is not a package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
