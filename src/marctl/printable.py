"""Make text from an archive safe for a terminal: characters that do not print are escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Invisible characters that Python calls printable: joiners, fillers, variation selectors.
UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
COLUMNS = 76  # of a line: a terminal of the usual 80 columns does not wrap it
MOST = 500  # characters of one line: enough for what an archive says about itself


def printable(text: str, most: int = MOST) -> str:
    """Return a text as one line of at most `most` characters, with unprintable characters escaped.

    Control characters could move the cursor, and direction marks could reverse a line: with either, the
    terminal would show text that nobody wrote. Runs of spaces become one space: with many, a terminal that
    wraps the line would begin the next one with whatever follows them. Existing escapes stay as they are.
    """
    text = re.sub("[ \n]+", " ", text)
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(_shown(character) for character in cut)


def _shown(character: str) -> str:
    if character.isprintable() and not UNSEEN.match(character):
        return character
    return character.encode("unicode_escape").decode("ascii")


def wrapped(start: str, text: str) -> Iterator[str]:
    """Yield lines that fit 80 columns: `start` and the text, with further lines indented below the text."""
    line, free = start, COLUMNS - len(start)
    for piece in _pieces(text, COLUMNS - len(start)):
        if _width(piece) > free:
            yield line.rstrip()
            line, free = " " * len(start), COLUMNS - len(start)
        shown = piece if line.strip() else piece.lstrip()
        line, free = line + shown, free - _width(shown)
    yield line.rstrip()


def _pieces(text: str, most: int) -> Iterator[str]:
    """Yield a text's words, each with the space before it; a word wider than `most` comes in parts."""
    for word in re.findall(" ?[^ ]*", text):
        part = ""
        for character in word:
            if _width(part + character) > most:
                yield part
                part = ""
            part += character
        yield part


def _width(text: str) -> int:
    """Return the number of columns that a text takes at most: some characters take two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WFA") for character in text)
