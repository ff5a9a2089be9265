"""A model in an ONNX file, run by ONNX Runtime."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import BadContract
from .fixed_batch import FixedBatch

# This limits torch's compute threads, too.
THREADS = "OMP_NUM_THREADS"
# ONNX Runtime's names for the accepted input type and output types.
FLOAT32, FLOATS = "tensor(float)", ("tensor(float)", "tensor(double)", "tensor(float16)")


class NotInstalled(RuntimeError):
    """A model that needs a package that is not installed."""


class OnnxModel:
    """An ONNX Runtime session, called as a function from its one input to one of its outputs."""

    def __init__(self, session: Any, output: str) -> None:
        self.session = session
        self.input = session.get_inputs()[0].name
        self.output = output

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the output, as float32, for a float32 batch (N, C, H, W)."""
        [outputs] = self.session.run([self.output], {self.input: batch})
        floats: np.ndarray = outputs.astype(np.float32, copy=False)
        return floats


def load_onnx(path: Path, output: str | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the model of an ONNX file, run on OMP_NUM_THREADS threads.

    `output` names one of several outputs. If the file has a fixed batch size, any batch is run in parts of
    that size.

    Raises NotInstalled, and BadContract if the input does not fit or the output is not clear.
    """
    try:
        # Imported only for an archive with such a model.
        import onnxruntime
    except ImportError as error:
        raise NotInstalled(
            "it needs ONNX Runtime, which is not installed; install onnxruntime, or build the archive with "
            "RUNTIME=eager"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get(THREADS) or os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    batch_size = _batch_size(session, path.name)
    model = OnnxModel(session, _output(session, path.name, output))
    return model if batch_size is None else FixedBatch(model, batch_size)


def _batch_size(session: Any, file: str) -> int | None:
    """Return a session's fixed batch size, None if it takes any. Raises BadContract."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        named = ", ".join(one.name for one in inputs)
        raise BadContract(f"{file} has {len(inputs)} inputs: {named}; export it with one, the images")
    if inputs[0].type != FLOAT32:
        raise BadContract(f"{file} takes {inputs[0].type}; export it with a float32 input: {FLOAT32}")
    first = next(iter(inputs[0].shape), None)  # a dynamic size has a name, or none
    return first if isinstance(first, int) and first > 0 else None


def _output(session: Any, file: str, wanted: str | None) -> str:
    """Return the name of the output that holds the labels' values. Raises BadContract."""
    types = {one.name: one.type for one in session.get_outputs()}
    named = ", ".join(types)
    if wanted is None and len(types) != 1:
        raise BadContract(
            f"{file} has {len(types)} outputs: {named}; name the one with a value per label in "
            "model-config.yaml, output: NAME"
        )
    name = next(iter(types)) if wanted is None else wanted
    if name not in types:
        near = difflib.get_close_matches(name, types, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {named}"
        raise BadContract(f"output is {name!r}, which {file} does not have; {hint}")
    if types[name] not in FLOATS:
        raise BadContract(
            f"the output {name} of {file} is {types[name]}; it must be one of {', '.join(FLOATS)}, with a "
            "value per label"
        )
    return name
