"""TensorFlow without its chatter, to be imported from here: `from quiet_tensorflow import tf`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

# What the C++ side says after the import: errors stay, hints to rebuild it for this processor go.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Send the process's stderr nowhere: what C++ writes does not pass by sys.stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


# At import it tells twice that oneDNN is on, whatever the level is set to. An import that fails still
# raises, and is shown.
with _no_stderr():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2 as freeze

__all__ = ["freeze", "tf"]
