"""Text of an archive's, made safe for a terminal: what does not print is shown by its number."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Python calls these printable, and nobody sees them: joiners, fillers, selectors of a glyph's variant.
UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
COLUMNS = 76  # of a line: no terminal of the usual 80 breaks it
MOST = 500  # characters of one line: what an archive says is no book


def printable(text: str, most: int = MOST) -> str:
    """Return a text in one line of at most `most` characters, with all that does not print as an escape.

    Control characters could move the cursor, and marks of direction could turn a line around: either makes a
    terminal show what nobody wrote. Of several spaces one is left: with many, a terminal that breaks a line
    would begin the next one with whatever follows them. What was escaped already stays as it is.
    """
    text = re.sub("[ \n]+", " ", text)
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(_shown(character) for character in cut)


def _shown(character: str) -> str:
    if character.isprintable() and not UNSEEN.match(character):
        return character
    return character.encode("unicode_escape").decode("ascii")


def wrapped(start: str, text: str) -> Iterator[str]:
    """Yield lines that no terminal of 80 columns breaks: a start, and below its end the rest of the text."""
    line, free = start, COLUMNS - len(start)
    for piece in _pieces(text, COLUMNS - len(start)):
        if _width(piece) > free:
            yield line.rstrip()
            line, free = " " * len(start), COLUMNS - len(start)
        shown = piece if line.strip() else piece.lstrip()
        line, free = line + shown, free - _width(shown)
    yield line.rstrip()


def _pieces(text: str, most: int) -> Iterator[str]:
    """Yield a text's words, each with the space before it; one that is too wide for a line in parts."""
    for word in re.findall(" ?[^ ]*", text):
        part = ""
        for character in word:
            if _width(part + character) > most:
                yield part
                part = ""
            part += character
        yield part


def _width(text: str) -> int:
    """Return the columns that a text takes at most: some characters take two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WFA") for character in text)
