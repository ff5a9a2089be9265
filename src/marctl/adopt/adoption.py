"""Find out what an untrusted archive contains from its files, none of which is run.

Parsing them may take any time and memory, so apart.py does it in the sandbox. Its answer is plain data, and
its form is checked here before anything is made of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from classifier.canonical import LABEL_FILE
from classifier.contract import COLOR_MODES, SERVER_KEYS
from marctl.adopt.class_source import KINDS, SIGMOID, ModelClass, class_of
from marctl.adopt.handler_source import Preprocessing, preprocessing_of
from marctl.adopt.source_values import MOST_TIMES, plain
from marctl.adopt.weights_file import ENDINGS, WITH_CLASS, BadWeights, Weights, weights_of
from marctl.printable import printable

# The names of the archive's files in the folder that is examined; any may be missing.
HANDLER, CLASS, LABELS, SETTINGS, WEIGHTS = "handler", "class", "labels", "settings", "weights"
# Settings for a model whose archive has none: one worker, which waits for a batch as briefly as possible.
SERVER = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 4, "maxBatchDelay": 1}
# The old settings that mean the same here: integers from 1 on.
CARRIED = (
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout",
    "maxRetryTimeoutInSec", "clientTimeoutInMills", "jobQueueSize",
)  # fmt: skip
MOST_SETTING = 2**31 - 1
MOST_LABELS = 10**5  # far more than any classifier has
MOST_SENTENCES = 50  # of a kind: nobody reads more


@dataclass(frozen=True)
class Question:
    """The archive's names of its files, None if its manifest names none, and all its members."""

    handler: str
    names: dict[str, str | None]
    members: list[str]


@dataclass
class Found:
    """What was found in an archive, and a sentence for each thing that was not."""

    preprocessing: Preprocessing
    model: ModelClass | None = None
    # The suffix under which the weights are saved, empty without weights, and the number of their tensors.
    ending: str = ""
    tensors: int = 0
    labels: list[str] | None = None
    settings: dict[str, int] = field(default_factory=dict)
    untold: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def is_multi_label(self) -> bool:
        """Whether the class or the handler scores each label on its own."""
        return self.preprocessing.has_sigmoid or (self.model is not None and self.model.kind == SIGMOID)

    @property
    def has_class(self) -> bool:
        """Whether the weights belong to a class."""
        return not self.ending or self.ending in WITH_CLASS


def look(folder: Path, question: Question) -> Found:
    """Examine an archive's files."""
    found = Found(_preprocessing(question.handler, _bytes(folder / HANDLER)))
    found.remarks += found.preprocessing.remarks
    if (name := question.names[CLASS]) is not None:
        found.model = _class(_bytes(folder / CLASS) or b"", name, question.members)
        found.untold += found.model.faults
    _look_at_labels(_bytes(folder / LABELS), found)
    _look_at_settings(_bytes(folder / SETTINGS), question.names[SETTINGS], found)
    _look_at_weights(folder / WEIGHTS, question.names[WEIGHTS], found)
    return found


def _preprocessing(handler: str, source: bytes | None) -> Preprocessing:
    try:
        return preprocessing_of(handler, source)
    except RecursionError:  # some deeply nested sources can be parsed but not walked
        return Preprocessing(doubts=[f"the handler {plain(handler)} is nested too deeply to be read"])


def _class(source: bytes, name: str, members: list[str]) -> ModelClass:
    try:
        return class_of(source, name, members)
    except RecursionError:
        return ModelClass("?", faults=[f"{plain(name)} is nested too deeply to be read"])


def written(found: Found) -> str:
    """Return what was found as JSON, with at most MOST_SENTENCES sentences of a kind."""
    for lines in (found.untold, found.remarks, found.preprocessing.doubts):
        if (more := len(lines) - MOST_SENTENCES) > 0:
            lines[MOST_SENTENCES:] = [f"and {more:,} more of that kind"]
    return json.dumps(dataclasses.asdict(found))


def read(answer: bytes) -> Found:
    """Return what `written` wrote. Raises ValueError for anything else."""
    try:
        told = json.loads(answer)
        preprocessing, model, labels = told["preprocessing"], told["model"], told["labels"]
        return Found(
            Preprocessing(
                {key: _checked(FORMS[key], value) for key, value in preprocessing["input"].items()},
                _sentences(preprocessing["doubts"]),
                has_sigmoid=_checked(_is_truth, preprocessing["has_sigmoid"]),
            ),
            model and ModelClass(_sentences([model["name"]])[0], _checked(_is_kind, model["kind"])),
            _checked(("", *ENDINGS).__contains__, told["ending"]),
            _checked(_is_whole, told["tensors"]),
            labels and [_checked(_is_text, label) for label in labels],
            {
                _checked(CARRIED.__contains__, key): _checked(_is_whole, value)
                for key, value in told["settings"].items()
            },
            _sentences(told["untold"]),
            _sentences(told["remarks"]),
        )
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"its answer has another form ({type(error).__name__})") from error


def _checked(is_formed: Callable[[Any], bool], value: Any) -> Any:
    if not is_formed(value):
        raise TypeError
    return value


def _sentences(lines: Any) -> list[str]:
    return [printable(_checked(_is_text, line)) for line in _checked(_is_list, lines)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_kind(value: Any) -> bool:
    return value is None or value in KINDS.values()


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_SETTING


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_TIMES and all(map(_is_number, value))


# Only the form; the contract, which reads the numbers next, checks whether they make sense.
FORMS: dict[str, Callable[[Any], bool]] = {
    "color": COLOR_MODES.__contains__,
    "resize": _is_number,
    "size": _is_row,
    "mean": _is_row,
    "std": _is_row,
}


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _look_at_weights(file: Path, name: str | None, found: Found) -> None:
    """Find out which weights can be used, and what their shapes show."""
    if name is None:
        found.untold.append("WEIGHTS: the archive names no weights")
        return
    try:
        weights = weights_of(file, plain(name))
    except BadWeights as error:
        found.untold.append(f"WEIGHTS: {error}")
        return
    found.ending, found.tensors = weights.ending, len(weights.shapes)
    if found.has_class and found.model is None:
        found.untold.append(
            f"MODEL: the archive has no class file, but {plain(name)} needs one: the handler creates the "
            "model itself. Write the class, alone in its file, and name that file with MODEL"
        )
    _check_channels(found, weights)
    if weights.labels is not None and not (file.parent / LABELS).exists():
        _number_labels(found, *weights.labels)


def _number_labels(found: Found, count: int, tensor: str) -> None:
    """Use numbers as labels, as many as the last layer has outputs."""
    if not 0 < count <= MOST_LABELS:
        found.untold.append(f"labels: {plain(tensor)} has {count:,} rows, which cannot be one per label")
        return
    found.labels = [str(number) for number in range(count)]
    found.remarks.append(
        f"the archive has no {LABEL_FILE}: the labels are the numbers 0 to {count - 1}, as many as "
        f"{plain(tensor)} has rows"
    )


def _check_channels(found: Found, weights: Weights) -> None:
    """Check the colour against the first convolution, or take it from there."""
    into = found.preprocessing.input
    color = {1: "grayscale", 3: "rgb"}.get(weights.channels or 0)
    if color is not None and into.setdefault("color", color) != color:
        found.preprocessing.doubts.append(
            f"the first convolution takes {weights.channels} channels, and the "
            f"transforms make images in {into['color']}"
        )
    mean = into.get("mean")
    if into.get("color") == "rgb" and mean is not None and len(mean) == 1:
        into["mean"], into["std"] = mean * 3, into["std"] * 3


def _look_at_labels(text: bytes | None, found: Found) -> None:
    if text is None:
        return
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict) and isinstance(told.get("object_type_names"), list):
        told = dict(enumerate(told["object_type_names"]))
    if not isinstance(told, dict):
        found.untold.append(f"labels: {LABEL_FILE} is not a JSON object of numbers and names")
        return
    # As TorchServe reads it: if a value is a list, as for ImageNet, its last element is the label.
    names = {str(key): one[-1] if isinstance(one, list) and one else one for key, one in told.items()}
    labels = [names.get(str(number)) for number in range(len(names))]
    if not labels or not all(isinstance(label, str) for label in labels):
        found.untold.append(f"labels: {LABEL_FILE} lacks a string for a number from 0 to {len(names) - 1}")
        return
    found.labels = [str(label) for label in labels]


def _look_at_settings(text: bytes | None, name: str | None, found: Found) -> None:
    """Take TorchServe's settings from the old model-config.yaml."""
    try:
        told = {} if name is None else yaml.safe_load(text or b"")
    except Exception:  # noqa: BLE001 for a value that does not fit its tag, the loader raises anything
        told = None
    if not isinstance(told, dict):
        found.untold.append(f"the settings in {plain(str(name))} are not valid YAML")
        told = {}
    for key, value in told.items():
        if key in CARRIED and type(value) is int and 0 < value <= MOST_SETTING:
            found.settings[key] = value
        elif key == "maxBatchDelay" and value == 0:
            found.remarks.append(
                "TorchServe treats maxBatchDelay 0 as unset and waits 100 ms; here it is set to 1"
            )
        else:
            what = "is a setting of TorchServe" if key in SERVER_KEYS else "has no meaning here"
            found.untold.append(f"{_key(key)} in the old {plain(str(name))} {what}, and is not carried over")
    _complete(found.settings)


def _key(key: Any) -> str:
    # YAML reads integers of thousands of digits, which Python refuses to print.
    is_short = isinstance(key, str | float | bool) or key is None
    return plain(str(key), 40) if is_short else "a key that is not a string"


def _complete(settings: dict[str, int]) -> None:
    """Add missing settings. Without minWorkers or maxWorkers, TorchServe starts a worker per CPU."""
    if {"minWorkers", "maxWorkers"} & settings.keys():
        most = settings.get("maxWorkers", settings.get("minWorkers", 1))
        settings["maxWorkers"] = most
        settings["minWorkers"] = min(settings.get("minWorkers", most), most)
    for key, value in SERVER.items():
        settings.setdefault(key, value)
