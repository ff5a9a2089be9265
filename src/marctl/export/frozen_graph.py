"""A frozen TensorFlow graph, run in a session as in TensorFlow 1, from `input:0` to `output:0`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from marctl.errors import UserError
from marctl.export.quiet_tensorflow import tf

INPUT, OUTPUT = "input", "output"


class FrozenGraph:
    """An opened .pb file: float32 (N, C, H, W) in, float32 (N, labels) out. Use it in a `with`."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load the graph; `threads` limits threads within and between operations. Raises UserError."""
        graph = tf.Graph()
        try:
            definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())
            with graph.as_default():
                tf.import_graph_def(definition, name="")
            self.shape: list[int | None] = graph.get_tensor_by_name(f"{INPUT}:0").shape.as_list()
            graph.get_tensor_by_name(f"{OUTPUT}:0")
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror}; build it with: make tensorflow"
            ) from error
        except Exception as error:  # protobuf and TensorFlow raise a dozen types if it is not a graph
            raise UserError(
                f"{path} is not a frozen graph from {INPUT}:0 to {OUTPUT}:0 ({error}); "
                "build it with: make tensorflow"
            ) from error
        bound = {} if threads is None else {
            "intra_op_parallelism_threads": threads, "inter_op_parallelism_threads": threads,
        }  # fmt: skip
        self._session = tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(**bound))

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the outputs of one batch, of any size."""
        outputs: np.ndarray = self._session.run(f"{OUTPUT}:0", {f"{INPUT}:0": batch})
        return outputs

    def __enter__(self) -> FrozenGraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        self._session.close()
