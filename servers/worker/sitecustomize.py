"""Python runs this file first in each of TorchServe's workers: they are started with its folder on the path.

Nothing else may lie in this folder: it comes before the archive, and would shadow it.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

LATE_TORCH = Path(__file__).parents[2] / "archive" / "late_torch.py"

spec = spec_from_file_location(LATE_TORCH.stem, LATE_TORCH)
if spec is not None and spec.loader is not None:
    late_torch = module_from_spec(spec)
    spec.loader.exec_module(late_torch)
    late_torch.install()
