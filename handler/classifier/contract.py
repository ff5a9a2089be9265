"""The model's input and output, as its model-config.yaml defines them."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .canonical import LABEL_FILE
from .outputs import KINDS

# The contract's colour modes and Pillow's names for them; a mode's length is its number of channels.
COLOR_MODES = {"grayscale": "L", "rgb": "RGB"}
INPUT_KEYS = ("color", "size", "resize", "ink", "mean", "std")
OUTPUTS, OUTPUT = "outputs", "output"
# Keys that TorchServe 0.12.0 itself reads from the file (its ModelConfig class).
SERVER_KEYS = (
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout",
    "deviceType", "deviceIds", "parallelType", "parallelLevel", "torchrun", "maxRetryTimeoutInSec",
    "clientTimeoutInMills", "jobQueueSize", "useJobTicket", "sequenceMaxIdleMSec", "sequenceTimeoutMSec",
    "maxSequenceJobQueueSize", "maxNumSequence", "continuousBatching", "sequenceBatching",
    "asyncCommunication", "useVenv", "pt2",
)  # fmt: skip
GREY_LEVELS = 256
# The class to use from the model's file, and the arguments of its constructor.
MODEL_KEYS = CLASS, ARGUMENTS = "class", "arguments"
# The contract itself, and `archive`, from which the build reads the archive's name and files.
KEYS = ("input", "labels", OUTPUTS, OUTPUT, "archive")


class BadContract(ValueError):
    """A model-config.yaml that is invalid or does not fit the model; the text names key and remedy."""


@dataclass(frozen=True)
class Contract:
    """The shape, colour and scale of the model's input, and the names of its outputs."""

    color: str
    height: int
    width: int
    resize: int | None  # pixels of the shorter side, before the centre is cropped; None: no crop
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[str, ...]
    ink: int | None = None  # length in pixels of a drawing's longer side; None: not rescaled
    outputs: str | None = None  # which of KINDS the outputs are; None: not given, the build decides
    output: str | None = None  # which of an ONNX file's outputs has the labels' values

    @classmethod
    def from_config(cls, config: Any, label_file: Mapping[str, str] | None = None) -> Contract:
        """Read the parsed YAML, and the archive's index_to_name.json if there is one.

        Raises BadContract with the key and the remedy.
        """
        spec = _section(config, "input")
        _refuse_unknown_keys(config, (*KEYS, *MODEL_KEYS, *SERVER_KEYS), "")
        _refuse_batch_size(config)
        _refuse_unknown_keys(spec, INPUT_KEYS, "input.")
        color = spec.get("color")
        if not isinstance(color, str) or color not in COLOR_MODES:
            raise BadContract(f"input.color is {color!r}; use one of {', '.join(COLOR_MODES)}")
        height, width = _size(spec)
        return cls(
            color=color,
            height=height,
            width=width,
            resize=_resize(spec, max(height, width)),
            mean=_per_channel(spec, "mean"),
            std=_positive(_per_channel(spec, "std")),
            labels=_labels(config, label_file),
            ink=_ink(spec, min(height, width)),
            outputs=_outputs(config),
            output=_output(config),
        )

    @classmethod
    def from_file(cls, path: Path) -> Contract:
        """Read a model-config.yaml that lists its labels itself. Raises BadContract."""
        return cls.from_config(yaml.safe_load(path.read_text(encoding="utf-8")))

    def to_dict(self) -> dict[str, Any]:
        """Return what a client or an exported file needs to know, in JSON's types."""
        return {
            "color": self.color,
            "size": [self.height, self.width],
            "resize": self.resize,
            "ink": self.ink,
            "mean": list(self.mean),
            "std": list(self.std),
            "labels": list(self.labels),
            OUTPUTS: self.outputs,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Contract:
        """Read the result of `to_dict`, also from before it had `ink` and `outputs`.

        Raises BadContract, or KeyError or TypeError if it is something else.
        """
        spec = {"ink": None} | {key: saved[key] for key in INPUT_KEYS if key != "ink" or key in saved}
        kind = {} if saved.get(OUTPUTS) is None else {OUTPUTS: saved[OUTPUTS]}
        return cls.from_config({"input": spec, "labels": saved["labels"], **kind})

    @property
    def mode(self) -> str:
        """Pillow's name for the colour mode: L or RGB."""
        return COLOR_MODES[self.color]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one input image."""
        return len(self.mode), self.height, self.width

    @cached_property
    def _levels(self) -> np.ndarray:
        """The normalized value of each grey level in each channel, float32 (C, 256).

        A channel has only 256 levels, so a lookup table is exact. The order is torchvision's: ToTensor
        divides by 255, Normalize subtracts the mean and divides by the deviation.
        """
        levels = np.arange(GREY_LEVELS, dtype=np.float32) / np.float32(GREY_LEVELS - 1)
        mean = np.array(self.mean, dtype=np.float32)[:, None]
        std = np.array(self.std, dtype=np.float32)[:, None]
        return (levels - mean) / std

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels (..., H, W, C) into the model's float32 (..., C, H, W)."""
        *batch, height, width, channels = pixels.shape
        shape = (*batch, channels, height, width)
        # take() needs an eighth to a quarter of the time that levels[pixels] does.
        scaled: np.ndarray
        if channels == 1:
            scaled = self._levels[0].take(pixels.reshape(shape))
            return scaled
        scaled = np.empty(shape, np.float32)
        for channel, levels in enumerate(self._levels):
            scaled[..., channel, :, :] = levels.take(pixels[..., channel])
        return scaled


def read_label_file(path: Path) -> dict[str, str] | None:
    """Return the labels of an index_to_name.json by their index as text; None if there is no such file.

    It is read as TorchServe does: the last entry of a list such as ImageNet's [id, name] is the label, and a
    list under `object_type_names` holds all labels in order. Raises BadContract.
    """
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BadContract(
            f'{path.name} is not valid JSON ({error}); write {{"0": "first label", ...}}'
        ) from error
    if isinstance(names, dict) and isinstance(in_order := names.get("object_type_names"), list):
        names = {str(index): name for index, name in enumerate(in_order)}
    if not isinstance(names, dict):
        raise BadContract(f'{path.name} is not a JSON object; write {{"0": "first label", ...}}')
    labels = {index: name[-1] if isinstance(name, list) and name else name for index, name in names.items()}
    for index, name in labels.items():
        if not isinstance(name, str):
            raise BadContract(f"the label {name!r} of {index} in {path.name} is not text; put it in quotes")
    return labels


def _section(config: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(config, Mapping) or not isinstance(config.get(key), Mapping):
        raise BadContract(f"there is no section {key!r}; it needs color, size, mean and std")
    section: Mapping[str, Any] = config[key]
    return section


def _refuse_unknown_keys(spec: Mapping[str, Any], known: tuple[str, ...], section: str) -> None:
    for key in spec:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
            raise BadContract(f"{section}{key} is not a known key; {hint}")


def _refuse_batch_size(config: Mapping[str, Any]) -> None:
    size = config.get("batchSize", 1)
    if type(size) is not int or size < 1:  # not isinstance: true is an int, too
        raise BadContract(f"batchSize is {size!r}; write a whole number of 1 or more")


def _size(spec: Mapping[str, Any]) -> tuple[int, int]:
    match spec.get("size"):
        case [int(height), int(width)] if height > 1 and width > 1:  # true and false count as 1 and 0
            return height, width
        case other:
            raise BadContract(f"input.size is {other!r}; write [height, width] in pixels")


def _resize(spec: Mapping[str, Any], least: int) -> int | None:
    resize = spec.get("resize")
    if resize is not None and (not isinstance(resize, int) or resize < least):
        raise BadContract(
            f"input.resize is {resize!r}; write the length in pixels of the shorter side before the crop, "
            f"at least {least}, or leave it out"
        )
    return resize


def _ink(spec: Mapping[str, Any], most: int) -> int | None:
    ink = spec.get("ink")
    if ink is None:
        return None
    if not isinstance(ink, int) or isinstance(ink, bool) or not 1 < ink <= most:
        raise BadContract(
            f"input.ink is {ink!r}; write the length in pixels of a drawing's longer side, from 2 to {most}, "
            "or leave it out"
        )
    if spec["color"] != "grayscale" or spec.get("resize") is not None:
        raise BadContract("input.ink needs color grayscale and no resize; leave it out")
    return ink


def _per_channel(spec: Mapping[str, Any], key: str) -> tuple[float, ...]:
    color = spec["color"]
    channels = len(COLOR_MODES[color])
    values = spec.get(key)
    if not isinstance(values, list) or not all(_is_number(value) for value in values):
        raise BadContract(f"input.{key} is {values!r}; write a list of numbers, {channels} for {color}")
    if len(values) != channels:
        raise BadContract(f"input.{key} has {len(values)} numbers; {color} needs {channels}")
    return tuple(float(v) for v in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(std: tuple[float, ...]) -> tuple[float, ...]:
    if min(std) <= 0:
        raise BadContract(f"input.std is {list(std)}; each deviation must be above 0")
    return std


def _labels(config: Mapping[str, Any], label_file: Mapping[str, str] | None) -> tuple[str, ...]:
    labels = config.get("labels")
    if labels == LABEL_FILE:
        return _labels_of(label_file)
    if not isinstance(labels, list) or not labels:
        raise BadContract(f"labels is {labels!r}; list one name per output, or write {LABEL_FILE}")
    for label in labels:
        if not isinstance(label, str):
            raise BadContract(f"the label {label!r} is not text; put it in quotes")
    return tuple(labels)


def _labels_of(label_file: Mapping[str, str] | None) -> tuple[str, ...]:
    if label_file is None:
        raise BadContract(f"labels is {LABEL_FILE}, but the archive has no such file; name it: LABELS=path")
    if not isinstance(label_file, Mapping):
        raise BadContract(f'{LABEL_FILE} is not a JSON object; write {{"0": "first label", ...}}')
    try:
        return tuple(label_file[str(index)] for index in range(len(label_file)))
    except KeyError as error:
        last = len(label_file) - 1
        raise BadContract(
            f"{LABEL_FILE} has no entry {error}; it needs every index from 0 to {last}"
        ) from None


def _outputs(config: Mapping[str, Any]) -> str | None:
    if OUTPUTS not in config:
        return None
    kind = config[OUTPUTS]
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(kind.lower(), KINDS, n=1) if isinstance(kind, str) else []
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(KINDS)}"
        raise BadContract(f"outputs is {kind!r}; {hint}")
    return kind


def _output(config: Mapping[str, Any]) -> str | None:
    if OUTPUT not in config:
        return None
    name = config[OUTPUT]
    if not isinstance(name, str) or not name:
        raise BadContract(f"output is {name!r}; write the name of one output of the ONNX file, in quotes")
    return name
