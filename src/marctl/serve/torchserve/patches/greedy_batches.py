"""Have TorchServe's workers take what waits, instead of waiting for more.

TorchServe 0.12.0 holds a request back until its batch is full or maxBatchDelay is over, also when it is
alone, and the least delay it knows is a millisecond: more than all the rest of an answer takes. With a
batchSize of 1 it does not wait, but then answers a quarter of the requests (docs/performance.md). What helps
is a delay of 0: a worker that is free takes all that has come meanwhile, up to batchSize. TorchServe cannot
be told so (0 counts as not set) and gets no more fixes, so two of its bytes are changed at the start:

    long maxDelay = maxBatchDelay;   becomes   long maxDelay = 0;
    if (maxDelay <= 0) break;        becomes   if (maxDelay < 0) break;

The installed TorchServe stays as it is. The changed class lies in the folder that it is started in, where
its launcher lets Java look first. Only the one file whose digest is known is changed; with any other,
TorchServe waits as it always did.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from pathlib import Path

JAR = Path("frontend") / "model-server.jar"
CLASS = "org/pytorch/serve/wlm/Model.class"
SHA256 = "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff"
# In its method pollBatch: where, and what stands there instead.
#   aload_0, getfield maxBatchDelay, i2l   ->   lconst_0, four times nop
#   ifgt                                   ->   ifge
EDITS = ((17047, b"\x09\x00\x00\x00\x00"), (17290, b"\x9c"))


def install(folder: Path) -> bool:
    """Write the changed class into the folder that TorchServe is started in; False where it is unknown."""
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
    """Return the class as the installed TorchServe has it, None where it has none of that name."""
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        return None
    try:
        with zipfile.ZipFile(Path(spec.origin).parent / JAR) as jar:
            return jar.read(CLASS)
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
