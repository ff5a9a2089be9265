"""Python runs this file first in each of TorchServe's workers: they are started with its folder on the path.

Nothing else may lie in this folder: it comes before the archive, and would shadow it.
"""

import sys
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

WORKER = "model_service_worker"
# Where memory is short the kernel ends who has most, plus this many thousandths of all that the machine or
# the container may have: with less than 1000 that could be Java, in a small container.
FIRST_TO_GO = "1000"
LATE_TORCH = Path(__file__).parents[1] / "patches" / "late_torch.py"

# A worker rather than Java: another one answers what was in it. TorchServe's launcher, which hands on what it
# has to Java, comes here too.
if any(WORKER in word for word in sys.orig_argv):
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO, encoding="ascii")

spec = spec_from_file_location(LATE_TORCH.stem, LATE_TORCH)
if spec is not None and spec.loader is not None:
    late_torch = module_from_spec(spec)
    spec.loader.exec_module(late_torch)
    late_torch.install()
