"""Make an idle TorchServe worker take all waiting requests at once, instead of waiting for more.

TorchServe 0.12.0 holds a request back until its batch is full or maxBatchDelay is over, even if it is the
only one. The shortest delay is a millisecond, which is more than the rest of an answer takes. With a
batchSize of 1 it does not wait, but then answers only a quarter of the requests (docs/performance.md). The
solution is a delay of 0: an idle worker takes all requests that have arrived, up to batchSize. TorchServe has
no setting for it (0 counts as not set) and gets no more fixes, so two of its instructions are changed at the
start:

    long maxDelay = maxBatchDelay;   becomes   long maxDelay = 0;
    if (maxDelay <= 0) break;        becomes   if (maxDelay < 0) break;

The installed TorchServe is not modified. The changed class is written to the folder that TorchServe starts
in, where Java looks first. Only a class with the known digest is changed; with any other, TorchServe waits
as before.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from pathlib import Path

JAR = Path("frontend") / "model-server.jar"
CLASS = "org/pytorch/serve/wlm/Model.class"
SHA256 = "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff"
# In its method pollBatch: the offsets and the new bytes.
#   aload_0, getfield maxBatchDelay, i2l   ->   lconst_0, four times nop
#   ifgt                                   ->   ifge
EDITS = ((17047, b"\x09\x00\x00\x00\x00"), (17290, b"\x9c"))


def install(folder: Path) -> bool:
    """Write the changed class to TorchServe's working folder; return False if the class is unknown."""
    target = folder / CLASS
    original = _original()
    if original is None or hashlib.sha256(original).hexdigest() != SHA256:
        target.unlink(missing_ok=True)
        return False
    changed = bytearray(original)
    for place, code in EDITS:
        changed[place : place + len(code)] = code
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(changed)
    return True


def _original() -> bytes | None:
    """Return the installed TorchServe's class, None if there is none of that name."""
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        return None
    try:
        with zipfile.ZipFile(Path(spec.origin).parent / JAR) as jar:
            return jar.read(CLASS)
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
