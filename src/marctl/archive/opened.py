"""Open an archive in this process: its own code, loaded under a name of its own, without a server."""

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
from marctl.errors import UserError

if TYPE_CHECKING:
    from classifier.classifier import Classifier
    from classifier.messages import Request, Response

PACKAGE = "classifier"
# How torch.load reads weights is decided here and by torch: these would let it run what a pickle says.
LOADING = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD")
_numbers = itertools.count()


class NotOurs(BadArchive):
    """An archive whose handler is another project's."""


class Opened:
    """An opened archive. Close it, or use it in a `with`: its files lie in a folder of their own.

    The code in the archive answers, not the package `classifier` that is installed here. Its imports are
    relative, so it is loaded under a name that nothing else has, and several archives are open side by side.
    """

    classifier: Classifier

    def __init__(self, path: Path, public_key: Path | None = None, *, own_names: bool = False) -> None:
        """Unpack a private copy of the archive, and load it.

        With a public key, the copy must be signed with it. With `own_names` the modules of the model's class
        keep their own names: exporters write them into their files. Raises BadArchive, with what the
        archive's code raised, and UserError.
        """
        for variable in LOADING:
            os.environ.pop(variable, None)
        self.path = path
        self.name = f"archive_{next(_numbers)}"
        # Deleted at close, or at the latest when the process ends.
        self._folder = tempfile.TemporaryDirectory(prefix="archive-")
        self.folder = Path(self._folder.name).resolve()
        try:
            unpack(path, self.folder, public_key)
            check_ours(path, self.folder)
            load_package(self.folder / PACKAGE, self.name)
            core = importlib.import_module(f"{self.name}.classifier")
            self.classifier = core.Classifier.open(self.folder, prefix="" if own_names else None)
            self._request: type[Request] = core.Request
        except UserError:  # of the file, its signature or its owner
            self.close()
            raise
        except Exception as error:
            self.close()
            raise BadArchive(f"{path} does not load: {type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise

    def predict(self, bodies: Sequence[bytes]) -> list[Response]:
        """Answer one batch of image files, each as if it had come alone."""
        return self.classifier.answer([self._request(body) for body in bodies])

    def answer(self, requests: Sequence[dict[str, Any]]) -> list[Response]:
        """Answer one batch of requests, each given as the fields of `Request` by name."""
        return self.classifier.answer([self._request(**request) for request in requests])

    def check_eager(self) -> None:
        """Hold the reference to the golden answers, whatever answers else. Raises BadArchive."""
        try:
            self.classifier.check_eager()
        except Exception as error:  # the archive's own code runs here
            raise BadArchive(f"its reference does not hold: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Delete the unpacked files, and forget the modules loaded from them."""
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
    """Raise NotOurs where an unpacked archive has another project's handler."""
    if not (folder / PACKAGE).is_dir():
        raise NotOurs(
            f"the handler of {path} is not this project's, which this needs; answer images by it: "
            "make predict; serve it: make serve SEALED=no; or take it over: make adopt"
        )


def unpack(path: Path, folder: Path, public_key: Path | None = None) -> dict[str, Any]:
    """Unpack a private copy of an archive into a folder; return what its manifest says of the model.

    Raises UserError.
    """
    # What was checked is what is unpacked, whoever replaces the file meanwhile.
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
        raise ImportError(f"{folder.name} is no package")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
