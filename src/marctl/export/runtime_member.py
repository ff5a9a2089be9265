"""The member with the exported model, in an archive whose RUNTIME is not eager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from classifier.runtime import MEMBERS
from marctl.errors import UserError

if TYPE_CHECKING:
    from marctl.archive.opened import Opened

EAGER = "eager"
RUNTIMES = (EAGER, *MEMBERS)


def runtime_member(runtime: str, opened: Opened, contract: Any) -> dict[str, bytes]:
    """Return a runtime's member, its name and content; nothing for eager. Raises UserError."""
    if runtime == EAGER:
        return {}
    # Imported only when used: torch and the exporters are not part of the serving environment.
    from marctl.export.export import eager_of

    match runtime:
        case "torchscript":
            from marctl.export.to_torchscript import scripted

            return {MEMBERS[runtime]: scripted(eager_of(opened), contract)}
        case "onnx":
            from marctl.export.to_onnx import to_onnx

            return {MEMBERS[runtime]: to_onnx(eager_of(opened), contract)}
        case "aoti":
            from marctl.export.to_aoti import to_aoti

            return {MEMBERS[runtime]: to_aoti(eager_of(opened), contract)}
        case _:
            raise UserError(f"RUNTIME={runtime} is not known; use one of {', '.join(RUNTIMES)}")
