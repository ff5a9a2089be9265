"""Known findings that are accepted, each with its reason, from one file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from marctl.errors import UserError

FILE = Path(__file__).with_name("accepted.toml")


@dataclass
class Accepted:
    """The reasons for one kind of finding by id, and which ids were used."""

    reasons: dict[str, str]
    used: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, kind: str, file: Path = FILE) -> Accepted:
        """Read the accepted findings of a kind, `packages` or `code`. Raises UserError."""
        try:
            reasons = tomllib.loads(file.read_text(encoding="utf-8"))[kind]
        except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
            raise UserError(f"cannot read [{kind}] in {file}: {error}") from error
        for name, reason in reasons.items():
            if not isinstance(reason, str) or not reason.strip():
                raise UserError(f"{file} accepts {name} without a reason; write one beside it")
        return cls(reasons)

    def covers(self, names: Iterable[str]) -> bool:
        """Return whether a finding with any of these names is accepted."""
        known = self.reasons.keys() & set(names)
        self.used |= known
        return bool(known)

    def unused(self) -> list[str]:
        """Return a sentence for each entry that covered no finding."""
        return [
            f"{FILE.name} accepts {name}, which is no longer found; remove it"
            for name in sorted(self.reasons.keys() - self.used)
        ]
