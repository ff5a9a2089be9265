"""The first use of torch imports it, however it is used, and gets the real torch."""

import subprocess
import sys

import pytest

PREPARED = """
import sys
import logging; logging.disable(logging.WARNING)
from marctl.serve.torchserve.patches import late_torch
late_torch.install()
stand_in = sys.modules["torch"]
import ts.torch_handler.base_handler as handler
assert "torch._C" not in sys.modules, "TorchServe's import needed torch"
"""


def run(program: str) -> str:
    """Run a program in a new Python process; return its output."""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "need",
    [
        "import torch; torch.zeros(1)",
        "from torch import nn; nn.Linear(1, 1)",
        "import torch.nn as nn; nn.Linear(1, 1)",
        "import torch.nn.functional as F; F.relu",
        "from torch.nn import functional as F; F.relu",
        "import torch.profiler; torch.profiler.schedule",
        "import torch.utils.data; torch.utils.data.DataLoader",
        "handler.torch.load",
        "import torchvision; torchvision.ops",
    ],
)
def test_torch_is_whole_however_it_is_asked_for(need):
    """The first use imports it; its modules exist once, and old references see the same."""
    run(
        PREPARED
        + need
        + """
import torch, torch.nn, torch.nn.functional, torch.profiler
assert torch is sys.modules["torch"] is not stand_in
assert sys.modules["torch.nn"] is torch.nn is stand_in.nn
assert isinstance(torch.nn.Linear(2, 2)(torch.zeros(1, 2)), handler.torch.Tensor)
assert handler.torch.cuda is torch.cuda and stand_in.profiler is torch.profiler
assert callable(torch.profiler.profile)
"""
    )


def test_stand_in_tells_what_torchserve_asks():
    """The version is the installed one, there is no GPU, and the module's location is right."""
    printed = run(
        PREPARED
        + """
import importlib.util, torch
print(torch.__version__, torch.cuda.is_available())
print(importlib.util.find_spec("torch").origin == torch.__file__, "torch._C" in sys.modules)
"""
    )
    version, *rest = printed.split()
    assert version == run("import torch; print(torch.__version__.split('+')[0])").strip()
    assert rest == ["False", "True", "False"]


def test_imported_torch_is_left_alone():
    """If torch is already imported, it is not replaced."""
    install = PREPARED.partition("stand_in")[0]
    run(f"import torch, sys; real = torch\n{install}\nassert sys.modules['torch'] is real")
