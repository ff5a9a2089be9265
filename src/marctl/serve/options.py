"""The options that the commands of a server share, and what they mean."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

from marctl.errors import UserError
from marctl.serve.scratch import unwritable
from marctl.serve.served_copies import Terms
from marctl.serve.torchserve.instance import EXPLAIN, Instance
from marctl.serve.torchserve.settings import Settings, is_on
from marctl.signals import stop_on

SEALED = "SEALED"
# TorchServe's settings where none are named: the folder's, or those that the wheel has.
CONFIGS = (Path("config.properties"), Path(__file__).with_name("config.properties"))
# Shown to be tried, where no other images are named: those of this checkout.
IMAGES, ANY_IMAGE = Path("tests/images"), "image.jpg"
# The digit of the documentation.
DOCUMENTED = "2.png"


@contextlib.contextmanager
def server_in(folder: Path) -> Iterator[Instance]:
    """Yield the server of a folder; raise Stopped at SIGTERM and Ctrl-C.

    Raises UserError where the folder or the disk is at fault.
    """
    stop_on(signal.SIGTERM, signal.SIGINT)
    try:
        yield Instance(folder)
    except PermissionError as error:
        owner = "do it as the user who owns it"
        raise UserError(f"{error.filename}: {error.strerror}; {owner}") from error
    except OSError as error:
        if (said := unwritable(folder, error)) is None:
            raise
        raise UserError(said) from error


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the folder of a server's state and logs."""
    parser.add_argument("--run", type=Path, default=Path("run"), help="the server's folder, with its logs")


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Add what a start of TorchServe takes."""
    add_run(parser)
    add_config(parser)
    parser.add_argument("--port", type=int, help="the first of five ports")
    parser.add_argument("--host", help="of the HTTP addresses, as 0.0.0.0 in a container")
    parser.add_argument("--tokens", help="on: requests need a token; off")
    parser.add_argument("--log-config", type=Path, help="a log4j2 file; TorchServe then prints here")
    add_image(parser)
    add_terms(parser)
    add_explain(parser)
    add_archives(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the properties file."""
    default = next((file for file in CONFIGS if file.is_file()), CONFIGS[0])
    parser.add_argument("--config", type=Path, default=default, help="TorchServe's settings")


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add the image that the printed command shows."""
    parser.add_argument("--image", help="the image, or a folder of images, in the command that is printed")


def add_terms(parser: argparse.ArgumentParser) -> None:
    """Add what an archive must be; the environment's SEALED holds where --sealed is not given."""
    parser.add_argument("--public-key", type=Path, help="serve only archives that were signed with this key")
    parser.add_argument("--sealed", default=os.environ.get(SEALED, ""), help="no: also what was not sealed")


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add the switch of /explanations; the environment's EXPLAIN where it is not given."""
    parser.add_argument("--explain", default=os.environ.get(EXPLAIN, ""), help="1: answer /explanations")


def add_archives(parser: argparse.ArgumentParser) -> None:
    """Add one or more archives, as files or in one text."""
    parser.add_argument("archive", type=Path, nargs="*", help=".mar files")
    parser.add_argument("--archives", type=shlex.split, default=[], help="the same, as words of a shell")


def archives_of(arguments: argparse.Namespace) -> list[Path]:
    """Return the archives that were named. Raises UserError where there are none."""
    archives = [*arguments.archive, *map(Path, arguments.archives)]
    if not archives:
        raise UserError(f"name an archive: marctl {arguments.words[0]} model_store/convnet.mar")
    return archives


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the arguments name, on their port and host, with or without tokens.

    Raises UserError.
    """
    settings = Settings.from_file(arguments.config, arguments.port)
    if arguments.tokens:
        settings = settings.with_tokens(arguments.tokens)
    return settings.on_host(arguments.host) if arguments.host else settings


def explains(arguments: argparse.Namespace) -> bool:
    """Return whether /explanations is answered. Raises UserError."""
    return is_on(EXPLAIN, arguments.explain, default=False)


def terms_of(arguments: argparse.Namespace) -> Terms:
    """Return what the arguments say that an archive must fulfil. Raises UserError."""
    return Terms(arguments.public_key, must_be_sealed(arguments))


def must_be_sealed(arguments: argparse.Namespace) -> bool:
    """Return whether an archive that was not sealed is refused. Raises UserError."""
    return is_on(SEALED, arguments.sealed, default=True)


def image_of(named: str | None) -> str:
    """Return an image to be tried, as a word of a shell: the file, or one of a folder."""
    path = named or (str(IMAGES) if IMAGES.is_dir() else ANY_IMAGE)
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).glob("[!.]*") if file.is_file())
        documented = next((file for file in files if file.name == DOCUMENTED), None)
        path = str(documented or next(iter(files), ANY_IMAGE))
    # curl takes brackets and braces for patterns, unless it is told not to.
    return shlex.quote(path) + (" -g" if set(path) & set("[]{}") else "")
