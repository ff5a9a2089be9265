"""What an archive says about itself. Its form is checked before use; its content is only a claim.

Whoever made the archive also wrote its records. They are compared with the rest of the archive where
possible, but agreement does not make them true.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from classifier import canonical
from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from classifier.golden import FOLDER as GOLDEN_FOLDER
from classifier.runtime import MEMBERS
from marctl.printable import printable

# The runtime without an exported member; MEMBERS has the member of every other runtime.
EAGER = "eager"
# Of a record: the commit that is not known, and the latest time, since a zip cannot hold one after 2107.
UNKNOWN = "unknown"
LATEST = 4354819198
COMMIT = re.compile(rf"[0-9a-f]{{40}}(-dirty)?|{UNKNOWN}")
TORCH = re.compile(r"\d{1,4}(\.\d{1,9}){1,3}((a|b|rc)\d{1,9})?(\.(post|dev)\d{1,9}){0,2}", re.ASCII)
REMEDY = "build the archive with: make archive"
# Limits for showing figures and inputs: longer values are cut, nested ones left out.
MOST_FIGURES, MOST_CHARACTERS, MOST_NUMBERS = 24, 60, 8


def malformed(records: Mapping[str, bytes]) -> Iterator[str]:
    """Yield a sentence for each record that does not have the required form."""
    forms: dict[str, Callable[[Any], bool]] = {
        canonical.PROVENANCE: lambda told: (
            type(told["created"]) is int
            and 0 <= told["created"] <= LATEST
            and isinstance(told["figures"], dict | None)
            and all(isinstance(told[key], str) for key in ("name", "version", "runtime"))
            and COMMIT.fullmatch(told["source_commit"]) is not None
            and TORCH.fullmatch(told["torch"]) is not None
        ),
        GOLDEN_ANSWERS: lambda told: (
            len(told["pictures"]) > 0
            and all(isinstance(one["label"], str) for one in told["pictures"].values())
            and all(_is_row(one["outputs"]) for one in told["pictures"].values())
        ),
    }
    for name, is_formed in forms.items():
        if name not in records:
            continue
        try:
            formed = is_formed(json.loads(records[name]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            formed = False
        if not formed:
            yield f"{name} is malformed; {REMEDY}"


def contradictions(
    records: Mapping[str, bytes], model: Mapping[str, Any], members: set[str]
) -> Iterator[str]:
    """Yield a sentence for each contradiction between the records and the manifest or the members."""
    told = json.loads(records[canonical.PROVENANCE])
    for key, named in (("name", "modelName"), ("version", "modelVersion")):
        if told[key] != model[named]:
            yield f"{canonical.PROVENANCE} says {key} {told[key]!r}, but the manifest says {model[named]!r}"
    if told["runtime"] not in (EAGER, *MEMBERS):
        known = ", ".join((EAGER, *MEMBERS))
        yield f"{canonical.PROVENANCE} says runtime {told['runtime']!r}; known runtimes are {known}"
    else:
        wanted = {MEMBERS[told["runtime"]]} if told["runtime"] in MEMBERS else set()
        there = members & set(MEMBERS.values())
        for name in sorted(there - wanted):
            yield f"there is a member {name}, but {canonical.PROVENANCE} says runtime {told['runtime']}"
        for name in sorted(wanted - there):
            yield f"{canonical.PROVENANCE} says runtime {told['runtime']}, but there is no member {name}"
    for name in json.loads(records[GOLDEN_ANSWERS])["pictures"]:
        if f"{GOLDEN_FOLDER}/{name}" not in members:
            yield f"{GOLDEN_ANSWERS} names {name!r}, but there is no such image"


def claims(records: Mapping[str, bytes], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what an archive says about itself, as pairs of a name and a text that is safe to print."""
    told = json.loads(records[canonical.PROVENANCE])
    yield "name", printable(f"{told['name']} {told['version']}")
    yield "source", f"commit {told['source_commit']}"
    yield "torch", told["torch"]
    yield "runtime", told["runtime"]
    yield "figures", _listed(told["figures"] or {}) or "none"
    yield "takes", _listed(config["input"])


def _is_row(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) > 0
        and all(isinstance(one, int | float) and math.isfinite(one) for one in values)
    )


def _listed(values: Mapping[Any, Any]) -> str:
    shown = [
        f"{printable(str(key), MOST_CHARACTERS)} {printable(str(value), MOST_CHARACTERS)}"
        for key, value in values.items()
        if _is_plain(value)
    ]
    more = f", and {len(shown) - MOST_FIGURES} more" if len(shown) > MOST_FIGURES else ""
    return ", ".join(shown[:MOST_FIGURES]) + more


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MOST_NUMBERS and all(isinstance(one, int | float) for one in value)
    return isinstance(value, str | int | float)
