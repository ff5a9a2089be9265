"""A model whose outputs a test chooses: an image with one white pixel gets that pixel's row of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from bench.load.images import encoded

SIDE = 4
PIXELS = SIDE * SIDE


def image(white: int) -> bytes:
    """Return a black 4 x 4 PNG with one white pixel: float32 1 there, 0 elsewhere."""
    levels = np.zeros(PIXELS, np.uint8)
    levels[white] = 255
    return encoded(Image.fromarray(levels.reshape(SIDE, SIDE)), "PNG")


def contract(labels: int, **keys: object) -> dict[str, object]:
    """Return the content of a model-config.yaml for 4 x 4 images with this many labels."""
    return {
        "input": {"color": "grayscale", "size": [SIDE, SIDE], "mean": [0.0], "std": [1.0]},
        "labels": [f"label {index}" for index in range(labels)],
        "minWorkers": 1, "maxWorkers": 1, "batchSize": 4, "maxBatchDelay": 1,
        **keys,
    }  # fmt: skip


def table_of(rows: list[list[float]]) -> np.ndarray:
    """Return a float32 table (16, labels) that begins with these rows; the others repeat the first."""
    return np.array([*rows, *rows[:1] * (PIXELS - len(rows))], np.float32)


def onnx_model(
    table: np.ndarray, batch: int | str = "n", outputs: tuple[str, ...] = ("output",), inside: int = 0
) -> onnx.ModelProto:
    """Return the ONNX model of a table; its input is float32 (batch, 1, 4, 4).

    Of several outputs, the last is the table's and the others are the pixels. `inside` is a batch size fixed
    by a Reshape, whatever the input's shape says, as in older exports; 0 accepts any.
    """
    *others, last = outputs
    nodes = [
        helper.make_node("Reshape", ["input", "flat"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "table"], [last]),
        *(helper.make_node("Identity", ["pixels"], [name]) for name in others),
    ]
    widths = dict.fromkeys(others, PIXELS) | {last: table.shape[1]}
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "lookup",
        [values("input", TensorProto.FLOAT, [batch, 1, SIDE, SIDE])],
        [values(name, TensorProto.FLOAT, [batch, width]) for name, width in widths.items()],
        [
            numpy_helper.from_array(np.array([inside, PIXELS]), "flat"),
            numpy_helper.from_array(table, "table"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(folder: Path, model: onnx.ModelProto, config: dict[str, object], images: int) -> dict[str, str]:
    """Write weights, contract and golden images; return the make variables that name them."""
    onnx.save(model, folder / "lookup.onnx")
    return write_contract(folder, config, images) | {
        "MODEL": "", "WEIGHTS": str(folder / "lookup.onnx"), "RUNTIME": "eager"
    }  # fmt: skip


def write_contract(folder: Path, config: dict[str, object], images: int) -> dict[str, str]:
    """Write a contract and golden images; return the make variables that name them, and the archive."""
    golden = folder / "golden"
    golden.mkdir(parents=True)
    for white in range(images):
        (golden / f"{white}.png").write_bytes(image(white))
    (folder / "lookup.yaml").write_text(yaml.safe_dump(config))
    return {
        "NAME": "lookup",
        "MAR": str(folder / "lookup.mar"),
        "CONFIG": str(folder / "lookup.yaml"),
        "GOLDEN": str(golden),
        "FIGURES": "",
    }
