"""A model in an ONNX file, answered by ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

SUFFIX = ".onnx"
# What limits the arithmetic threads of torch, too.
THREADS = "OMP_NUM_THREADS"


class NotInstalled(RuntimeError):
    """A model that needs a package which is not here."""


class OnnxModel:
    """An ONNX Runtime session of one input and one output, called as a function."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.input = session.get_inputs()[0].name

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the session's first output for a float32 batch (N, C, H, W)."""
        outputs: np.ndarray = self.session.run(None, {self.input: batch})[0]
        return outputs


def load_onnx(path: Path) -> OnnxModel:
    """Return the model of an ONNX file, on as many threads as OMP_NUM_THREADS says. Raises NotInstalled."""
    try:
        # Only where an archive has such a model.
        import onnxruntime
    except ImportError as error:
        raise NotInstalled(
            "it answers by ONNX Runtime, which is not installed here; install onnxruntime, or build the "
            "archive with RUNTIME=eager"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get(THREADS) or os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    return OnnxModel(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
