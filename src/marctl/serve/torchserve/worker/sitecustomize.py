"""Python runs this file first in every TorchServe worker, because its folder is on their PYTHONPATH.

Nothing else may be in this folder: it comes before the archive, and would shadow its modules.
"""

import sys
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

WORKER = "model_service_worker"
# When memory runs out, the kernel kills the process that has most, counting this many thousandths of the
# machine's or container's memory on top. Below 1000 that could be Java, in a small container.
FIRST_TO_GO = "1000"
LATE_TORCH = Path(__file__).parents[1] / "patches" / "late_torch.py"

# Better a worker than Java: another worker answers its requests. The check is needed because this also runs
# in TorchServe's launcher, and Java would inherit the value from it.
if any(WORKER in word for word in sys.orig_argv):
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO, encoding="ascii")

spec = spec_from_file_location(LATE_TORCH.stem, LATE_TORCH)
if spec is not None and spec.loader is not None:
    late_torch = module_from_spec(spec)
    spec.loader.exec_module(late_torch)
    late_torch.install()
