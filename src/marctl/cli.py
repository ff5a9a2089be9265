"""marctl: one parser, one table of commands, one table of errors and exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

from marctl import extras
from marctl.errors import UserError
from marctl.output import told_to_the_end
from marctl.printable import printable
from marctl.signals import Stopped, stop_on

# Exit codes: 0 success, 1 something the operator can fix, 2 wrong usage (argparse's), and, as in shells, 128
# plus the signal's number. Anything else is a bug and shows its traceback.
FAULT, INTERRUPTED, SIGNALLED = 1, 130, 128
# Names the variables that were given to make. It applies to one command, not to those that it starts.
MAKES = "MARCTL_VARIABLES"
# Operator errors raised by the archive's own package, which cannot know marctl's UserError.
CORE_ERRORS = frozenset({
    "BadContract", "BadRequest", "GoldenMismatch", "Altered", "NotInstalled", "WrongProcessor",
})  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A module with `add_arguments(parser)` and `run(arguments) -> int`, and its line in the help."""

    module: str
    help: str = ""  # empty: only this tool starts it, and it is not listed


COMMANDS = {
    "archive": Command("marctl.build.build", "build an archive from a model folder"),
    "relock": Command("marctl.build.relock", "lock a model folder's ONNX export; builds need no torch then"),
    "adopt": Command("marctl.adopt.adopt", "make a model folder from another project's .mar"),
    "verify": Command("marctl.verify.verify", "check an archive and its signature"),
    "sign": Command("marctl.archive.signing", "sign an archive with a private key"),
    "serve": Command("marctl.serve.serve", "start TorchServe with archives"),
    "up": Command("marctl.serve.front.up", "start TorchServe behind nginx, and restart it if it dies"),
    "deploy": Command("marctl.serve.front.deploy", "replace what `marctl up` serves, without a gap"),
    "stop": Command("marctl.serve.stop", "stop the server"),
    "status": Command("marctl.serve.status", "show whether the server runs and is ready"),
    "token": Command("marctl.serve.token", "print a token for the server"),
    "logs": Command("marctl.serve.logs", "print the end of the server's log"),
    "flask": Command("marctl.serve.flask.app", "serve an archive with Flask, in the foreground"),
    "predict": Command("marctl.predict.command", "classify images, with or without a server"),
    "export": Command("marctl.export.command", "export an archive's model to another format"),
    "doctor": Command("marctl.serve.doctor", "show what this machine has and lacks"),
    "healthcheck": Command("marctl.serve.healthcheck", "send a server a golden image and check its answer"),
    "docker": Command("marctl.docker", "build the images, run and stop a container"),
    "audit": Command("marctl.audit.audit", "check for known vulnerabilities, write the bill of materials"),
    "clean": Command("marctl.build.clean", "delete what was built here"),
    "article": Command("marctl.client.article", "send a preprocessed image to Flask's /test"),
    "bench": Command("marctl.bench", "measure this checkout's servers"),
    "image-bill": Command("marctl.audit.image_bill"),
    "seal": Command("marctl.build.seal"),
    "once": Command("marctl.once"),
    "path": Command("marctl.build.path"),
    "convert": Command("marctl.export.convert"),
    "to-tensorflow": Command("marctl.export.to_tensorflow"),
    "run-tensorflow": Command("marctl.export.run_tensorflow"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    # ONNX Runtime sends telemetry from its import on, unless this is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    stop_on(signal.SIGTERM)
    words = list(sys.argv[1:] if argv is None else argv)
    return reported(lambda: told_to_the_end(lambda: _run(words)))


def reported(program: Callable[[], int]) -> int:
    """Run a program and return its exit status; print an error that the user can fix as one sentence."""
    try:
        return program()
    except BrokenPipeError:  # of some other pipe: `told_to_the_end` handles our output
        raise
    except Stopped as stopped:
        print(f"stopped by {stopped}", file=sys.stderr)
        return SIGNALLED + stopped.number
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        sentence = printable(
            ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        )
    except Exception as error:
        if (message := _operator_message(error)) is None:
            raise
        sentence = message
    print(f"error: {sentence}", file=sys.stderr)
    return FAULT


def _operator_message(error: Exception) -> str | None:
    """Return the message of an error that the operator can fix, or None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return extras.remedy(error)
    # By name: their modules import numpy, which most commands do not need.
    core = [kind for kind in type(error).__mro__ if kind.__module__.partition(".")[0] == "classifier"]
    return str(error) if any(kind.__name__ in CORE_ERRORS for kind in core) else None


class _Version(argparse.Action):
    """Prints the version, which is looked up only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and exit."""
        print(f"marctl {metadata.version('marctl')}")
        parser.exit()


def _run(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    if command in COMMANDS and (given := os.environ.pop(MAKES, None)) is not None:
        from marctl import makefile

        words = makefile.completed(words, command, given.split())
    arguments = _parser(command, is_asked_for_help=bool({"-h", "--help"} & set(words))).parse_args(words)
    arguments.words = words
    return int(arguments.do(arguments))


def _parser(chosen: str | None, *, is_asked_for_help: bool) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the options of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="marctl", description="Build, check, serve and export model archives."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        if not command.help and name != chosen:
            continue
        own = commands.add_parser(name, help=command.help) if command.help else commands.add_parser(name)
        if name == chosen:
            module = importlib.import_module(command.module)
            own.description = module.__doc__
            module.add_arguments(own)
            own.set_defaults(do=module.run)
            if is_asked_for_help:
                from marctl import makefile

                own.epilog = " ".join(filter(None, (own.epilog, makefile.described(name))))
    return parser
