"""Run an archive in the sandbox, and compare its outputs for the golden images with the recorded ones."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from classifier.golden import ANSWERS as GOLDEN_ANSWERS
from classifier.golden import FOLDER as GOLDEN_FOLDER
from classifier.golden import TOLERANCE
from marctl.archive.bounded_zip import read_record
from marctl.sandbox import sandbox
from marctl.sandbox.sandbox import NoAnswer
from marctl.serve.torchserve import patches

TRIAL = Path(__file__).with_name("trial.py")
PATCHES = Path(patches.__file__).parent
SHOWN = 10  # outputs


def disproof(
    mar: zipfile.ZipFile, folder: Path, model: dict[str, Any], labels: Sequence[str]
) -> Iterator[str]:
    """Yield why an archive does not answer as recorded; nothing if it does.

    `folder` has the archive's files without its golden answers, so its code cannot just repeat them.
    """
    recorded = json.loads(read_record(mar, GOLDEN_ANSWERS))["pictures"]
    names = list(recorded)
    random.SystemRandom().shuffle(names)  # so that the order reveals nothing
    try:
        told = _asked(mar, folder, model, names)
    except NoAnswer as error:
        yield f"it was run but gave no answer: {error}"
        return
    if not isinstance(told, dict) or "error" in told:
        yield f"does not load: {told['error'] if isinstance(told, dict) else 'its answer is malformed'}"
        return
    yield from _differences("it", told.get("outputs"), names, recorded, labels)
    if told.get("reference") is not None:
        yield from _differences("its reference", told["reference"], names, recorded, labels)


def _asked(mar: zipfile.ZipFile, folder: Path, model: dict[str, Any], names: list[str]) -> Any:
    """Return the answer of the archive's code. Raises NoAnswer."""
    images = [mar.read(f"{GOLDEN_FOLDER}/{name}") for name in names]
    header = {
        "name": model["modelName"],
        "handler": model["handler"],
        "images": [len(image) for image in images],
    }
    request = b"\n".join([json.dumps(header).encode(), b"".join(images)])
    # A model takes a few times the size of its file, plus memory for computing.
    size = sum(info.file_size for info in mar.infolist())
    answered = sandbox.run(TRIAL, folder, request, 4 * sandbox.GIB + 8 * size, [PATCHES])
    try:
        return json.loads(answered)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"its answer is not JSON ({error})") from error


def _differences(
    who: str, outputs: Any, names: list[str], recorded: dict[str, Any], labels: Sequence[str]
) -> Iterator[str]:
    """Yield a sentence for the first image that is not answered as recorded."""
    if not isinstance(outputs, list) or len(outputs) != len(names):
        yield f"{who} does not answer every golden image"
        return
    answered = dict(zip(names, outputs, strict=True))
    for name, one in recorded.items():
        got, expected = answered[name], one["outputs"]
        if not _is_row(got, len(labels)) or len(expected) != len(labels):
            yield f"{who} does not answer the golden image {name!r} with {len(labels)} numbers"
            return
        difference = max(abs(a - b) for a, b in zip(got, expected, strict=True))
        label = labels[got.index(max(got))]
        if label != one["label"] or not difference <= TOLERANCE:
            yield (
                f"{who} does not answer as recorded: golden image {name!r}: expected {one['label']!r} "
                f"{_shown(expected)}, got {label!r} {_shown(got)}; they differ by {difference:.2g}, at most "
                f"{TOLERANCE:.0e} is allowed. The weights, the contract or the code differ from the build's"
            )
            return


def _is_row(row: Any, length: int) -> bool:
    # `one == one` excludes NaN, which would be neither greater nor less than anything.
    return (
        isinstance(row, list) and len(row) == length and all(type(one) is float and one == one for one in row)  # noqa: PLR0124
    )


def _shown(values: Sequence[float]) -> str:
    more = ", ..." if len(values) > SHOWN else ""
    return "[" + ", ".join(f"{value:.5f}" for value in values[:SHOWN]) + more + "]"
