"""What the model eats and gives, as its model-config.yaml states it."""

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
# What TorchServe 0.12.0 itself reads from the file (its ModelConfig class).
SERVER_KEYS = (
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout",
    "deviceType", "deviceIds", "parallelType", "parallelLevel", "torchrun", "maxRetryTimeoutInSec",
    "clientTimeoutInMills", "jobQueueSize", "useJobTicket", "sequenceMaxIdleMSec", "sequenceTimeoutMSec",
    "maxSequenceJobQueueSize", "maxNumSequence", "continuousBatching", "sequenceBatching",
    "asyncCommunication", "useVenv", "pt2",
)  # fmt: skip
GREY_LEVELS = 256
# Which class of the model's file is the model, and what it is made with.
MODEL_KEYS = CLASS, ARGUMENTS = "class", "arguments"
# The contract itself, and what the build reads: how the archive is called and which files go into it.
KEYS = ("input", "labels", OUTPUTS, OUTPUT, "archive")


class BadContract(ValueError):
    """A model-config.yaml that does not say what the model needs; the text names key and remedy."""


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
    ink: int | None = None  # pixels of the longer side of what is drawn; None: as the resize leaves it
    outputs: str | None = None  # which of KINDS the outputs are; None: not said, and the build decides
    output: str | None = None  # of several outputs of an ONNX file, the one that holds the labels' values

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
        """Return what a client or an exported file needs to know, as JSON can hold it."""
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
    def from_dict(cls, told: Mapping[str, Any]) -> Contract:
        """Read what `to_dict` told, also before there were `ink` and `outputs`.

        Raises BadContract, or KeyError and TypeError where it is something else.
        """
        spec = {"ink": None} | {key: told[key] for key in INPUT_KEYS if key != "ink" or key in told}
        kind = {} if told.get(OUTPUTS) is None else {OUTPUTS: told[OUTPUTS]}
        return cls.from_config({"input": spec, "labels": told["labels"], **kind})

    @property
    def mode(self) -> str:
        """Pillow's name of the colour mode: L or RGB."""
        return COLOR_MODES[self.color]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image as the model takes it."""
        return len(self.mode), self.height, self.width

    @cached_property
    def _levels(self) -> np.ndarray:
        """The value of each grey level in each channel, float32 (C, 256).

        An image has only 256 levels a channel, so looking up is exact, and in torchvision's order:
        ToTensor divides by 255, Normalize takes the mean off and divides by the deviation.
        """
        levels = np.arange(GREY_LEVELS, dtype=np.float32) / np.float32(GREY_LEVELS - 1)
        mean = np.array(self.mean, dtype=np.float32)[:, None]
        std = np.array(self.std, dtype=np.float32)[:, None]
        return (levels - mean) / std

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels (..., H, W, C) into the model's float32 (..., C, H, W)."""
        *batch, height, width, channels = pixels.shape
        scaled = np.empty((*batch, channels, height, width), np.float32)
        for channel, levels in enumerate(self._levels):
            scaled[..., channel, :, :] = levels[pixels[..., channel]]
        return scaled


def read_label_file(path: Path) -> dict[str, str] | None:
    """Return the labels of an index_to_name.json by their index as text; None where there is no such file.

    As TorchServe reads it: of a list, such as ImageNet's [id, name], the last entry is the label, and a list
    under `object_type_names` holds all labels in order. Raises BadContract.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BadContract(f'{path.name} is no JSON ({error}); write {{"0": "first label", ...}}') from error
    if isinstance(told, dict) and isinstance(names := told.get("object_type_names"), list):
        told = {str(index): name for index, name in enumerate(names)}
    if not isinstance(told, dict):
        raise BadContract(f'{path.name} is no JSON object; write {{"0": "first label", ...}}')
    labels = {index: name[-1] if isinstance(name, list) and name else name for index, name in told.items()}
    for index, name in labels.items():
        if not isinstance(name, str):
            raise BadContract(f"{path.name} names {name!r} for {index}, which is no text; put it in quotes")
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
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise BadContract(f"{section}{key} is not known; {hint}")


def _refuse_batch_size(config: Mapping[str, Any]) -> None:
    size = config.get("batchSize", 1)
    if type(size) is not int or size < 1:  # not isinstance: true is an int, too
        raise BadContract(f"batchSize is {size!r}; write a whole number from 1")


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
            f"input.resize is {resize!r}; write the pixels of the shorter side before the centre is "
            f"cut out, at least {least}, or leave it out"
        )
    return resize


def _ink(spec: Mapping[str, Any], most: int) -> int | None:
    ink = spec.get("ink")
    if ink is None:
        return None
    if not isinstance(ink, int) or isinstance(ink, bool) or not 1 < ink <= most:
        raise BadContract(
            f"input.ink is {ink!r}; write the pixels of the longer side of what is drawn, from 2 to {most}, "
            "or leave it out"
        )
    if spec["color"] != "grayscale" or spec.get("resize") is not None:
        raise BadContract("input.ink goes with color grayscale and without resize; leave it out")
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
        raise BadContract(f"input.std is {list(std)}; each deviation is above 0")
    return std


def _labels(config: Mapping[str, Any], label_file: Mapping[str, str] | None) -> tuple[str, ...]:
    labels = config.get("labels")
    if labels == LABEL_FILE:
        return _labels_of(label_file)
    if not isinstance(labels, list) or not labels:
        raise BadContract(f"labels is {labels!r}; list one name an output, or write {LABEL_FILE}")
    for label in labels:
        if not isinstance(label, str):
            raise BadContract(f"the label {label!r} is no text; put it in quotes")
    return tuple(labels)


def _labels_of(label_file: Mapping[str, str] | None) -> tuple[str, ...]:
    if label_file is None:
        raise BadContract(f"labels is {LABEL_FILE}, but the archive has no such file; name it: LABELS=path")
    if not isinstance(label_file, Mapping):
        raise BadContract(f'{LABEL_FILE} is no JSON object; write {{"0": "first label", ...}}')
    try:
        return tuple(label_file[str(index)] for index in range(len(label_file)))
    except KeyError as error:
        last = len(label_file) - 1
        raise BadContract(f"{LABEL_FILE} has no entry {error}; it needs all from 0 to {last}") from None


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
