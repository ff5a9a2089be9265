"""Turn the Makefile's variables into arguments of marctl.

Make exports the variables and lists those given on its command line in MARCTL_VARIABLES, so that a PORT or
NAME that the environment sets for another purpose is ignored. Neither make nor a shell interprets the values,
which may contain spaces, quotes and `$`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from marctl.build.model_folder import archive_of, name_of
from marctl.errors import UserError

FOLDER = {"RUN": "--run"}
SIGNED = {"PUBLIC_KEY": "--public-key"}
WHERE = {"PROPERTIES": "--config", "PORT": "--port"}
SERVING = FOLDER | SIGNED | WHERE | {"GOLDEN": "--image", "TOKENS": "--tokens", "MARS": "--archives"}
PROXY = {
    "DOOR": "--door",
    "RATE": "--rate",
    "CONNECTIONS": "--connections",
    "TLS_CERT": "--tls-certificate",
    "TLS_KEY": "--tls-key",
}
BUILD = {
    "NAME": "--name",
    "VERSION": "--version",
    "WEIGHTS": "--weights",
    "CONFIG": "--config",
    "LABELS": "--labels",
    "GOLDEN": "--golden",
    "FIGURES": "--figures",
    "RUNTIME": "--runtime",
    "MAR": "--mar",
}
# The variables that are options of each command. "RUN=1" stands for RUN with the value 1: a flag without a
# value.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "archive": BUILD,
    "adopt": {"NAME": "--name"},
    "serve": SERVING,
    "up": SERVING | PROXY,
    "deploy": FOLDER | SIGNED | {"MARS": "--archives"},
    "stop": FOLDER,
    "status": FOLDER,
    "token": FOLDER | {"KIND": "--kind"},
    "logs": FOLDER,
    "flask": SIGNED | WHERE | {"GOLDEN": "--image"},
    "predict": SIGNED | {"URL": "--url", "OUT": "--out"},
    "verify": SIGNED | {"RUN=1": "--run"},
    "sign": {"KEY": "--key"},
    "export": {"GOLDEN": "--golden"},
    "doctor": FOLDER | WHERE,
    "docker": {"NAME": "--name", "TARGET": "--target", "CONTAINER": "--container", "PORT": "--port"},
    "audit": SIGNED | {"SERVICE": "--service"},
}
# For these commands an empty variable means "none", which differs from an absent one.
EMPTY_IS_NONE = frozenset({"archive"})
# The variables that a command needs: one of these groups, otherwise the message is shown.
WANTED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "adopt": (("MAR FOLDER",), "name the archive and the new folder: make adopt MAR=old.mar FOLDER=mine"),
    "sign": (("KEY",), "name the private key: make sign KEY=private.pem"),
    "predict": (
        ("IMAGE", "IMAGES OUT"),
        "name an image: make predict IMAGE=tests/images/2.png, or a folder and an output file: "
        "make predict IMAGES=folder OUT=answers.csv",
    ),
}
NO_TOKENS = "the Flask server has no tokens and listens on this machine only; leave out TOKENS"
# Commands whose last argument is the archive that the variables select.
OF_AN_ARCHIVE = frozenset({"serve", "up", "deploy", "flask", "verify", "sign", "export", "audit", "path"})


def completed(words: list[str], command: str, names: Iterable[str]) -> list[str]:
    """Return a command line with the variables of these names added; arguments in `words` take precedence.

    Raises UserError if a variable is missing, or if a model folder does not name its archive.
    """
    given = {name: os.environ.get(name, "") for name in names}
    _check(command, given)
    files = list(_files(command, given))
    end = ["--", *files] if files and "--" not in words else files
    return [command, *_options(command, given), *words[words.index(command) + 1 :], *end]


def described(command: str) -> str | None:
    """Return the help line about a command's variables, or None if it has none."""
    options = [f"{variable} is {option}" for variable, option in OPTIONS.get(command, {}).items()]
    if not options:
        return None
    archive = "; MAR, NAME or MODEL select the archive" if command in OF_AN_ARCHIVE else ""
    return f"Variables of make {command}: {', '.join(options)}{archive}."


def _check(command: str, given: Mapping[str, str]) -> None:
    ways, sentence = WANTED.get(command, ((), ""))
    if ways and not any(all(given.get(name) for name in way.split()) for way in ways):
        raise UserError(sentence)
    if command == "flask" and given.get("TOKENS"):
        raise UserError(NO_TOKENS)
    if command == "relock" and (replaced := [name for name in BUILD if given.get(name)]):
        raise UserError(f"make export exports what is in the model folder; leave out {', '.join(replaced)}")


def _options(command: str, given: Mapping[str, str]) -> Iterator[str]:
    for variable, option in OPTIONS.get(command, {}).items():
        name, _, value = variable.partition("=")
        if value:
            if given.get(name) == value:
                yield option
        elif given.get(name) or (name in given and command in EMPTY_IS_NONE):
            yield f"{option}={given[name]}"
    if command == "predict" and given.get("URL"):
        yield f"--model={name_of(given)}"
    if command == "docker" and "NAME" not in given:
        yield f"--name={name_of(given)}"


def _files(command: str, given: Mapping[str, str]) -> Iterator[str]:
    match command:
        case "archive" | "relock":
            yield from [given["MODEL"]] if "MODEL" in given else []
        case "adopt":
            yield from (given.get(name, "") for name in ("MAR", "FOLDER"))
        case "predict":
            yield from [] if given.get("URL") else [archive_of(given)]
            yield given.get("IMAGE") or given.get("IMAGES", "")
        case _ if command in OF_AN_ARCHIVE and not given.get("MARS"):
            yield archive_of(given)
