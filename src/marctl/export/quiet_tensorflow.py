"""TensorFlow without its log messages. Import it from here: `from quiet_tensorflow import tf`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

# Of the C++ side's messages after the import, keep errors and drop hints to rebuild it for this processor.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Discard the process's stderr: C++ does not write to sys.stderr."""
    sys.stderr.flush()
    saved = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(devnull)
        os.close(saved)


# The import reports twice that oneDNN is on, whatever the log level. If it fails, it still raises.
with _no_stderr():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2 as freeze

__all__ = ["freeze", "tf"]
