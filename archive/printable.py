"""Text of an archive's, made safe for a terminal: what does not print is shown by its number."""

from __future__ import annotations

import re

# Python calls these printable, and nobody sees them: joiners, fillers, selectors of a glyph's variant.
UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
MOST = 500  # characters of one line: what an archive says is no book


def printable(text: str, most: int = MOST) -> str:
    """Return a text in one line of at most `most` characters, with all that does not print as an escape.

    Control characters could move the cursor, and marks of direction could turn a line around: either makes a
    terminal show what nobody wrote. What was escaped already stays as it is.
    """
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(_shown(character) for character in cut)


def _shown(character: str) -> str:
    if character == "\n":
        return " "
    if character.isprintable() and not UNSEEN.match(character):
        return character
    return character.encode("unicode_escape").decode("ascii")
