"""What a stranger's archive holds, told from its files, none of which is run.

To parse them may take any time and memory: adoption_apart.py does it in a process apart. Its answer is plain
data, and is held against its form here before anything is made of it.
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

# The archive's files by what they are, as they lie in the folder that is looked at; any may be missing.
HANDLER, CLASS, LABELS, SETTINGS, WEIGHTS = "handler", "class", "labels", "settings", "weights"
# How TorchServe runs a model whose archive does not say it: one worker, which takes what waits at once.
SERVER = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 4, "maxBatchDelay": 1}
# Of what the old settings say, what means the same here: whole numbers from 1 on.
CARRIED = (
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout",
    "maxRetryTimeoutInSec", "clientTimeoutInMills", "jobQueueSize",
)  # fmt: skip
MOST_SETTING = 2**31 - 1
MOST_LABELS = 10**5  # far more than any classifier has
MOST_SENTENCES = 50  # of a kind; nobody reads more


@dataclass(frozen=True)
class Question:
    """What the archive calls its files: None where its manifest names none."""

    handler: str
    names: dict[str, str | None]
    members: list[str]


@dataclass
class Found:
    """What was found in an archive, and a sentence for each thing that was not."""

    preprocessing: Preprocessing
    model: ModelClass | None = None
    # Under which ending the weights are kept, and of how many tensors they are; empty where none are.
    ending: str = ""
    tensors: int = 0
    labels: list[str] | None = None
    settings: dict[str, int] = field(default_factory=dict)
    untold: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def is_multi_label(self) -> bool:
        """Whether each label is judged by itself, by the class or by the handler."""
        return self.preprocessing.has_sigmoid or (self.model is not None and self.model.kind == SIGMOID)

    @property
    def has_class(self) -> bool:
        """Whether a class is filled with the weights."""
        return not self.ending or self.ending in WITH_CLASS


def look(folder: Path, question: Question) -> Found:
    """Look at an archive's files."""
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
    except RecursionError:  # deep calls can be parsed that cannot be walked
        return Preprocessing(doubts=[f"the handler {plain(handler)} is nested too deeply to be read"])


def _class(source: bytes, name: str, members: list[str]) -> ModelClass:
    try:
        return class_of(source, name, members)
    except RecursionError:
        return ModelClass("?", faults=[f"{plain(name)} is nested too deeply to be read"])


def written(found: Found) -> str:
    """Return what was found as JSON, with no more sentences of a kind than are read."""
    for lines in (found.untold, found.remarks, found.preprocessing.doubts):
        if (more := len(lines) - MOST_SENTENCES) > 0:
            lines[MOST_SENTENCES:] = [f"and {more:,} more of that kind"]
    return json.dumps(dataclasses.asdict(found))


def read(answer: bytes) -> Found:
    """Return what `written` wrote. Raises ValueError where it is anything else."""
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
        raise ValueError(f"it answers in another form ({type(error).__name__})") from error


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


# Whether the numbers make sense, the contract says, which reads them next.
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
    """Tell what can be taken over of the weights, and what their shapes tell."""
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
            f"MODEL: the archive has no class file, and {plain(name)} needs one: the handler makes the "
            "model itself. Write the class, alone, into the file that MODEL names"
        )
    _check_channels(found, weights)
    if weights.labels is not None and not (file.parent / LABELS).exists():
        _number_labels(found, *weights.labels)


def _number_labels(found: Found, count: int, tensor: str) -> None:
    """Let numbers be the labels: as many as the last layer has outputs."""
    if not 0 < count <= MOST_LABELS:
        found.untold.append(f"labels: {plain(tensor)} has {count:,} rows, and no classifier so many labels")
        return
    found.labels = [str(number) for number in range(count)]
    found.remarks.append(
        f"the archive has no {LABEL_FILE}: the labels are the numbers 0 to {count - 1}, as many as "
        f"{plain(tensor)} has rows"
    )


def _check_channels(found: Found, weights: Weights) -> None:
    """Hold the colour against the first convolution, or take it from there."""
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
        found.untold.append(f"labels: {LABEL_FILE} is no JSON object of numbers and names")
        return
    # As TorchServe reads it: of a list, such as ImageNet's, the last.
    names = {str(key): one[-1] if isinstance(one, list) and one else one for key, one in told.items()}
    labels = [names.get(str(number)) for number in range(len(names))]
    if not labels or not all(isinstance(label, str) for label in labels):
        found.untold.append(f"labels: {LABEL_FILE} has not a text for each number from 0 to {len(names) - 1}")
        return
    found.labels = [str(label) for label in labels]


def _look_at_settings(text: bytes | None, name: str | None, found: Found) -> None:
    """Take from the old model-config.yaml how TorchServe runs the model."""
    try:
        told = {} if name is None else yaml.safe_load(text or b"")
    except Exception:  # noqa: BLE001 of a value that is not what its tag says the loader raises anything
        told = None
    if not isinstance(told, dict):
        found.untold.append(f"the settings of {plain(str(name))} are no YAML that can be read")
        told = {}
    for key, value in told.items():
        if key in CARRIED and type(value) is int and 0 < value <= MOST_SETTING:
            found.settings[key] = value
        elif key == "maxBatchDelay" and value == 0:
            found.remarks.append(
                "maxBatchDelay 0 counts as unset for TorchServe, which then waits 100 ms; here it is 1"
            )
        else:
            what = "a setting of TorchServe's" if key in SERVER_KEYS else "of no meaning here"
            found.untold.append(f"{_key(key)} in the old {plain(str(name))} is {what}, and not carried over")
    _complete(found.settings)


def _key(key: Any) -> str:
    # Python writes no number of thousands of digits, and YAML reads some.
    return plain(str(key), 40) if isinstance(key, str | float | bool) or key is None else "what is no text"


def _complete(settings: dict[str, int]) -> None:
    """Add what is not said. With one of the two missing TorchServe starts a worker for each CPU."""
    if {"minWorkers", "maxWorkers"} & settings.keys():
        most = settings.get("maxWorkers", settings.get("minWorkers", 1))
        settings["maxWorkers"] = most
        settings["minWorkers"] = min(settings.get("minWorkers", most), most)
    for key, value in SERVER.items():
        settings.setdefault(key, value)
