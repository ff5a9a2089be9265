"""The options that the server commands share, and their values."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

from marctl.errors import UserError
from marctl.extras import need_torch
from marctl.serve.scratch import unwritable
from marctl.serve.served_copies import Terms
from marctl.serve.torchserve.instance import EXPLAIN, Instance
from marctl.serve.torchserve.settings import Settings, is_on
from marctl.signals import stop_on

SEALED = "SEALED"
# The default settings for TorchServe: those of the current folder, or those in the wheel.
CONFIGS = (Path("config.properties"), Path(__file__).with_name("config.properties"))
# The images in printed commands, unless others are given: those of this checkout.
IMAGES, ANY_IMAGE = Path("tests/images"), "image.jpg"
# The image that the documentation uses.
DOCUMENTED = "2.png"


@contextlib.contextmanager
def server_in(folder: Path) -> Iterator[Instance]:
    """Yield the server of a folder; raise Stopped at SIGTERM and Ctrl-C.

    Raises UserError if the folder cannot be used or the disk is full.
    """
    stop_on(signal.SIGTERM, signal.SIGINT)
    try:
        yield Instance(folder)
    except PermissionError as error:
        remedy = "run the command as the user who owns it"
        raise UserError(f"{error.filename}: {error.strerror}; {remedy}") from error
    except OSError as error:
        if (message := unwritable(folder, error)) is None:
            raise
        raise UserError(message) from error


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the folder of a server's state and logs."""
    parser.add_argument("--run", type=Path, default=Path("run"), help="the server's folder, with its logs")


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Add the options for starting TorchServe."""
    add_run(parser)
    add_config(parser)
    parser.add_argument("--port", type=int, help="the first of five ports")
    parser.add_argument("--host", help="host of the HTTP addresses, such as 0.0.0.0 in a container")
    parser.add_argument("--tokens", help="on or off: whether requests need a token")
    parser.add_argument("--log-config", type=Path, help="a log4j2 file; TorchServe then logs to the terminal")
    add_image(parser)
    add_terms(parser)
    add_explain(parser)
    add_archives(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the properties file."""
    default = next((file for file in CONFIGS if file.is_file()), CONFIGS[0])
    parser.add_argument("--config", type=Path, default=default, help="TorchServe's settings")


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add the image in the printed curl command."""
    parser.add_argument("--image", help="the image, or folder of images, for the printed curl command")


def add_terms(parser: argparse.ArgumentParser) -> None:
    """Add what an archive must fulfil; --sealed defaults to SEALED in the environment."""
    parser.add_argument("--public-key", type=Path, help="serve only archives signed with this key")
    parser.add_argument("--sealed", default=os.environ.get(SEALED, ""), help="no: accept unsealed archives")


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add the switch for /explanations; it defaults to EXPLAIN in the environment."""
    parser.add_argument("--explain", default=os.environ.get(EXPLAIN, ""), help="1: answer /explanations")


def add_archives(parser: argparse.ArgumentParser) -> None:
    """Add one or more archives, as arguments or in one string."""
    parser.add_argument("archive", type=Path, nargs="*", help=".mar files")
    parser.add_argument(
        "--archives", type=shlex.split, default=[], help="the same, as one shell-quoted string"
    )


def archives_of(arguments: argparse.Namespace) -> list[Path]:
    """Return the archives given. Raises UserError if there are none."""
    archives = [*arguments.archive, *map(Path, arguments.archives)]
    if not archives:
        raise UserError(f"name an archive: marctl {arguments.words[0]} model_store/convnet.mar")
    return archives


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings from the file, with the port, host and tokens from the arguments.

    Raises UserError.
    """
    settings = Settings.from_file(arguments.config, arguments.port)
    if arguments.tokens:
        settings = settings.with_tokens(arguments.tokens)
    return settings.on_host(arguments.host) if arguments.host else settings


def explains(arguments: argparse.Namespace) -> bool:
    """Return whether /explanations is on. Raises UserError, ModuleNotFoundError if it is not installed."""
    told = is_on(EXPLAIN, arguments.explain, default=False)
    if told:
        need_torch("torch", "captum")
    return told


def terms_of(arguments: argparse.Namespace) -> Terms:
    """Return what an archive must fulfil. Raises UserError."""
    return Terms(arguments.public_key, must_be_sealed(arguments))


def must_be_sealed(arguments: argparse.Namespace) -> bool:
    """Return whether unsealed archives are refused. Raises UserError."""
    return is_on(SEALED, arguments.sealed, default=True)


def image_of(named: str | None) -> str:
    """Return an image to try, quoted for a shell: the file, or one from the folder."""
    path = named or (str(IMAGES) if IMAGES.is_dir() else ANY_IMAGE)
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).glob("[!.]*") if file.is_file())
        documented = next((file for file in files if file.name == DOCUMENTED), None)
        path = str(documented or next(iter(files), ANY_IMAGE))
    # Without -g curl reads brackets and braces as patterns.
    return shlex.quote(path) + (" -g" if set(path) & set("[]{}") else "")
