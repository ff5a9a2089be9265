"""What the model eats and gives, as its model-config.yaml states it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

# The contract's colour modes and Pillow's names for them; a mode's length is its number of channels.
COLOR_MODES = {"grayscale": "L", "rgb": "RGB"}
INPUT_KEYS = ("color", "size", "mean", "std")
GREY_LEVELS = 256


class BadContract(ValueError):
    """A model-config.yaml that does not say what the model needs."""


@dataclass(frozen=True)
class Contract:
    """The shape, colour and scale of the model's input, and the names of its outputs."""

    color: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[str, ...]

    @classmethod
    def from_file(cls, path: Path) -> Contract:
        """Read a model-config.yaml. Raises BadContract with the key and the remedy."""
        return cls.from_config(yaml.safe_load(path.read_text(encoding="utf-8")))

    @classmethod
    def from_config(cls, config: Any) -> Contract:
        """Read what TorchServe hands over as `context.model_yaml_config`."""
        spec = _section(config, "input")
        _refuse_unknown_keys(spec)
        color = spec.get("color")
        if color not in COLOR_MODES:
            raise BadContract(f"input.color is {color!r}; use one of {', '.join(COLOR_MODES)}")
        channels = len(COLOR_MODES[color])
        height, width = _size(spec)
        return cls(
            color=color,
            height=height,
            width=width,
            mean=_per_channel(spec, "mean", channels),
            std=_positive(_per_channel(spec, "std", channels)),
            labels=_labels(config),
        )

    @property
    def mode(self) -> str:
        """Pillow's name of the colour mode: L or RGB."""
        return COLOR_MODES[self.color]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one picture as the model takes it."""
        return len(self.mode), self.height, self.width

    @cached_property
    def _levels(self) -> np.ndarray:
        """The value of each grey level in each channel, float32 (C, 256).

        A picture has only 256 levels a channel, so looking up is exact, and in torchvision's order:
        ToTensor divides by 255, Normalize takes the mean off and divides by the deviation.
        """
        levels = np.arange(GREY_LEVELS, dtype=np.float32) / np.float32(GREY_LEVELS - 1)
        mean = np.array(self.mean, dtype=np.float32)[:, None]
        std = np.array(self.std, dtype=np.float32)[:, None]
        return (levels - mean) / std

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 pixels (..., H, W, C) into the model's float32 (..., C, H, W)."""
        channels = [self._levels[c][pixels[..., c]] for c in range(len(self.mode))]
        return np.stack(channels, axis=-3)


def _section(config: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(config, Mapping) or not isinstance(config.get(key), Mapping):
        raise BadContract(f"there is no section {key!r}; it needs {', '.join(INPUT_KEYS)}")
    section: Mapping[str, Any] = config[key]
    return section


def _refuse_unknown_keys(spec: Mapping[str, Any]) -> None:
    for key in spec:
        if key not in INPUT_KEYS:
            near = difflib.get_close_matches(str(key), INPUT_KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(INPUT_KEYS)}"
            raise BadContract(f"input.{key} is not known; {hint}")


def _size(spec: Mapping[str, Any]) -> tuple[int, int]:
    match spec.get("size"):
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
        case other:
            raise BadContract(f"input.size is {other!r}; write [height, width] in pixels")


def _per_channel(spec: Mapping[str, Any], key: str, channels: int) -> tuple[float, ...]:
    values = spec.get(key)
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        raise BadContract(f"input.{key} is {values!r}; write a list of {channels} numbers")
    if len(values) != channels:
        raise BadContract(
            f"input.{key} has {len(values)} values, but {spec['color']} has {channels} channels"
        )
    return tuple(float(v) for v in values)


def _positive(std: tuple[float, ...]) -> tuple[float, ...]:
    if min(std) <= 0:
        raise BadContract(f"input.std is {list(std)}; each deviation is above 0")
    return std


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    labels = config.get("labels")
    if not isinstance(labels, Sequence) or isinstance(labels, str) or not labels:
        raise BadContract(f"labels is {labels!r}; list one name an output of the model")
    for label in labels:
        if not isinstance(label, str):
            raise BadContract(f"the label {label!r} is no text; put it in quotes")
    return tuple(labels)
