"""The member with the exported model, in an archive whose RUNTIME is not eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from classifier.runtime import MEMBERS
from marctl.errors import UserError

EAGER = "eager"
RUNTIMES = (EAGER, *MEMBERS)


def runtime_member(runtime: str, model: Callable[[], Any], contract: Any) -> dict[str, bytes]:
    """Return a runtime's member, its name and content; nothing for eager. Raises UserError."""
    # Imported only when used: torch and the exporters are not part of the serving environment.
    match runtime:
        case "eager":
            return {}
        case "torchscript":
            from marctl.export.to_torchscript import scripted

            return {MEMBERS[runtime]: scripted(model(), contract)}
        case "onnx":
            from marctl.export.to_onnx import to_onnx

            return {MEMBERS[runtime]: to_onnx(model(), contract)}
        case "aoti":
            from marctl.export.to_aoti import to_aoti

            return {MEMBERS[runtime]: to_aoti(model(), contract)}
        case _:
            raise unknown(runtime)


def unknown(runtime: str) -> UserError:
    """Return the error for a runtime that does not exist."""
    return UserError(f"RUNTIME={runtime} is not known; use one of {', '.join(RUNTIMES)}")
